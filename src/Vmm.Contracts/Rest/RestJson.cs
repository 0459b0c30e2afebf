using System.Text.Json.Serialization;
using Vmm.Contracts.Control;

namespace Vmm.Contracts.Rest;

/// <summary>JSON of the REST interface, made at compile time: camelCase names, enums as words, nulls left out.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    UseStringEnumConverter = true,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(VmInfo))]
[JsonSerializable(typeof(VmList))]
[JsonSerializable(typeof(HostInfo))]
[JsonSerializable(typeof(WorkerStats))]
[JsonSerializable(typeof(DeviceLimits))]
[JsonSerializable(typeof(CpuLimits))]
[JsonSerializable(typeof(VmCpu))]
[JsonSerializable(typeof(GuestAgentInfo))]
[JsonSerializable(typeof(MemoryWish))]
[JsonSerializable(typeof(VmMemory))]
[JsonSerializable(typeof(VmNuma))]
[JsonSerializable(typeof(HostNuma))]
[JsonSerializable(typeof(NumaFitInfo))]
[JsonSerializable(typeof(RehomeRequest))]
[JsonSerializable(typeof(RemovalBody))]
[JsonSerializable(typeof(DeviceInfo))]
[JsonSerializable(typeof(DiskSize))]
[JsonSerializable(typeof(DiskSizeWish))]
[JsonSerializable(typeof(DiskCopyWish))]
[JsonSerializable(typeof(SnapshotWish))]
[JsonSerializable(typeof(DiskStreamWish))]
[JsonSerializable(typeof(DiskCommitWish))]
[JsonSerializable(typeof(DeviceList))]
[JsonSerializable(typeof(BalancerInfo))]
[JsonSerializable(typeof(BalancerWish))]
[JsonSerializable(typeof(LogSettings))]
[JsonSerializable(typeof(DaemonEvent))]
[JsonSerializable(typeof(EventList))]
[JsonSerializable(typeof(TokenList))]
[JsonSerializable(typeof(NewToken))]
[JsonSerializable(typeof(TokenWish))]
[JsonSerializable(typeof(JobInfo))]
[JsonSerializable(typeof(JobList))]
[JsonSerializable(typeof(DiskRequest))]
[JsonSerializable(typeof(DiskInfo))]
[JsonSerializable(typeof(DiskList))]
[JsonSerializable(typeof(ImageRequest))]
[JsonSerializable(typeof(ImageExportRequest))]
[JsonSerializable(typeof(ImageInfo))]
[JsonSerializable(typeof(ImageList))]
[JsonSerializable(typeof(Problem))]
[JsonSerializable(typeof(ConsoleSize))]
[JsonSerializable(typeof(SavedFolderRequest))]
public sealed partial class RestJson : JsonSerializerContext;
