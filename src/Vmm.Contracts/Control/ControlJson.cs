using System.Text.Json.Serialization;

namespace Vmm.Contracts.Control;

/// <summary>
/// The serializers of everything that travels in frames, made at compile time. Unknown members are ignored: the other end may be of a later
/// release (<see cref="ControlVersion"/>).
/// </summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Skip,
    RespectNullableAnnotations = true,
    RespectRequiredConstructorParameters = true,
    UseStringEnumConverter = true,
    MaxDepth = 32)]
[JsonSerializable(typeof(ControlFrame))]
[JsonSerializable(typeof(ControlError))]
[JsonSerializable(typeof(StateBody))]
[JsonSerializable(typeof(HelloBody))]
[JsonSerializable(typeof(HelloRequest))]
[JsonSerializable(typeof(CreateBody))]
[JsonSerializable(typeof(ConfinementBody))]
[JsonSerializable(typeof(WorkerExit))]
[JsonSerializable(typeof(WorkerStats))]
[JsonSerializable(typeof(UnitList))]
[JsonSerializable(typeof(LimitsBody))]
[JsonSerializable(typeof(MemoryWish))]
[JsonSerializable(typeof(VmMemory))]
[JsonSerializable(typeof(WorkerNuma))]
[JsonSerializable(typeof(RehomeBody))]
[JsonSerializable(typeof(PlugBody))]
[JsonSerializable(typeof(UnplugBody))]
[JsonSerializable(typeof(RemovalBody))]
[JsonSerializable(typeof(DeviceInfo))]
[JsonSerializable(typeof(DeviceList))]
[JsonSerializable(typeof(RefreshDiskBody))]
[JsonSerializable(typeof(DiskSize))]
[JsonSerializable(typeof(CopyDiskBody))]
[JsonSerializable(typeof(StreamDiskBody))]
[JsonSerializable(typeof(CommitDiskBody))]
[JsonSerializable(typeof(CopyStepBody))]
[JsonSerializable(typeof(DiskCopyInfo))]
[JsonSerializable(typeof(MoveBody))]
[JsonSerializable(typeof(MoveInfo))]
[JsonSerializable(typeof(MoveStopBody))]
[JsonSerializable(typeof(ReceiveBody))]
[JsonSerializable(typeof(ReceiveInfo))]
[JsonSerializable(typeof(SnapshotBody))]
[JsonSerializable(typeof(SnapshotInfo))]
[JsonSerializable(typeof(LogBody))]
[JsonSerializable(typeof(VsockDial))]
[JsonSerializable(typeof(VsockDialed))]
[JsonSerializable(typeof(StorageDial))]
[JsonSerializable(typeof(StorageDialed))]
[JsonSerializable(typeof(GuestEventBody))]
[JsonSerializable(typeof(DiskErrorBody))]
[JsonSerializable(typeof(DiskStallBody))]
[JsonSerializable(typeof(PagingStoppedBody))]
[JsonSerializable(typeof(MemoryRestoreInfo))]
[JsonSerializable(typeof(ConsoleSize))]
[JsonSerializable(typeof(AgentStreamBody))]
public sealed partial class ControlJson : JsonSerializerContext;
