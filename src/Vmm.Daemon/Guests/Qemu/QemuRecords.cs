using System.Text.Json;
using System.Text.Json.Serialization;

namespace Vmm.Daemon.Guests.Qemu;

/// <summary>Answer to <c>guest-info</c>.</summary>
internal sealed record QemuInfo(
    string? Version, [property: JsonPropertyName("supported_commands")] IReadOnlyList<QemuCommand?>? SupportedCommands);

/// <summary>A command that an agent knows.</summary>
internal sealed record QemuCommand(string? Name, bool Enabled);

/// <summary>Answer to <c>guest-get-host-name</c>.</summary>
internal sealed record QemuHostName(string? HostName);

/// <summary>Answer to <c>guest-get-osinfo</c>.</summary>
internal sealed record QemuSystem(string? PrettyName, string? Name, string? VersionId, string? KernelRelease, string? Machine);

/// <summary>One of <c>guest-network-get-interfaces</c>.</summary>
internal sealed record QemuInterface(string? Name, string? HardwareAddress, IReadOnlyList<QemuAddress?>? IpAddresses);

/// <summary>An address of an interface.</summary>
internal sealed record QemuAddress(string? IpAddress, int? Prefix);

/// <summary>One of <c>guest-get-fsinfo</c>.</summary>
internal sealed record QemuFileSystem(string? Name, string? Mountpoint, string? Type, ulong? UsedBytes, ulong? TotalBytes);

/// <summary>Answer to <c>guest-exec</c>.</summary>
internal sealed record QemuProcess(long Pid);

/// <summary>Answer to <c>guest-exec-status</c>.</summary>
internal sealed record QemuProcessStatus(
    bool Exited, int? Exitcode, int? Signal, byte[]? OutData, byte[]? ErrData, bool OutTruncated, bool ErrTruncated);

/// <summary>JSON of the protocol's answers.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.KebabCaseLower, MaxDepth = 16)]
[JsonSerializable(typeof(JsonElement))]
[JsonSerializable(typeof(long))]
[JsonSerializable(typeof(QemuInfo))]
[JsonSerializable(typeof(QemuHostName))]
[JsonSerializable(typeof(QemuSystem))]
[JsonSerializable(typeof(IReadOnlyList<QemuInterface?>), TypeInfoPropertyName = "Interfaces")]
[JsonSerializable(typeof(IReadOnlyList<QemuFileSystem?>), TypeInfoPropertyName = "FileSystems")]
[JsonSerializable(typeof(QemuProcess))]
[JsonSerializable(typeof(QemuProcessStatus))]
internal sealed partial class QemuJson : JsonSerializerContext;
