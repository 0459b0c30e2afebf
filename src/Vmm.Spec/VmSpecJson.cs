using System.Text.Json;
using System.Text.Json.Serialization;
using System.Text.Json.Serialization.Metadata;

namespace Vmm.Spec;

/// <summary>
/// A spec as JSON, the way it travels from daemon to worker, which may be of different releases: what is null is left out, and a member
/// that the reader does not know is ignored. Spec files are strict, see <see cref="SpecReader"/>.
/// </summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Skip,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    RespectNullableAnnotations = true,
    UseStringEnumConverter = true)]
[JsonSerializable(typeof(VmSpec))]
[JsonSerializable(typeof(DiskSpec))]
[JsonSerializable(typeof(NetSpec))]
public sealed partial class VmSpecJson : JsonSerializerContext
{
    /// <summary>The JSON of a spec.</summary>
    public static JsonElement Write(VmSpec spec) => JsonSerializer.SerializeToElement(spec, Default.VmSpec);

    /// <summary>The spec of a JSON, checked by <see cref="SpecValidation"/>; null, and why, otherwise.</summary>
    public static VmSpec? TryRead(JsonElement json, out string problem)
    {
        try
        {
            VmSpec? spec = json.Deserialize(Default.VmSpec);
            if (spec is null || !Whole(spec))
            {
                problem = "the spec lacks a member";
                return null;
            }

            IReadOnlyList<SpecProblem> problems = SpecValidation.Validate(spec);
            problem = problems.Count > 0 ? $"{problems[0].Path}: {problems[0].Message}" : "";
            return problems.Count > 0 ? null : spec;
        }
        catch (Exception cause) when (cause is JsonException or InvalidOperationException or NotSupportedException)
        {
            problem = cause.Message;
            return null;
        }
    }

    /// <summary>The JSON of one disk.</summary>
    public static JsonElement Write(DiskSpec disk) => JsonSerializer.SerializeToElement(disk, Default.DiskSpec);

    /// <summary>The JSON of one network device.</summary>
    public static JsonElement Write(NetSpec net) => JsonSerializer.SerializeToElement(net, Default.NetSpec);

    /// <summary>The disk of a JSON, checked; null, and why, otherwise.</summary>
    public static DiskSpec? TryReadDisk(JsonElement json, out string problem) =>
        TryReadPart(
            json, Default.DiskSpec, Whole, DeviceValidation.Check, out problem);

    /// <summary>The network device of a JSON, checked; null, and why, otherwise.</summary>
    public static NetSpec? TryReadNet(JsonElement json, out string problem) =>
        TryReadPart(json, Default.NetSpec, Whole, DeviceValidation.Check, out problem);

    private static T? TryReadPart<T>(
        JsonElement json, JsonTypeInfo<T> type, Func<T, bool> whole, Func<T, IReadOnlyList<SpecProblem>> check, out string problem)
        where T : class
    {
        try
        {
            T? part = json.Deserialize(type);
            if (part is null || !whole(part))
            {
                problem = "the device lacks a member";
                return null;
            }

            IReadOnlyList<SpecProblem> problems = check(part);
            problem = problems.Count > 0 ? $"{problems[0].Path}: {problems[0].Message}" : "";
            return problems.Count > 0 ? null : part;
        }
        catch (Exception cause) when (cause is JsonException or InvalidOperationException or NotSupportedException)
        {
            problem = cause.Message;
            return null;
        }
    }

    private static bool Whole(IReadOnlyList<IReadOnlyList<int>>? rows)
    {
        for (int i = 0; i < (rows?.Count ?? 0); i++)
        {
            if (rows![i] is null)
            {
                return false;
            }
        }

        return true;
    }

    private static bool Whole(DiskSpec? disk) => disk is
    {
        Path: not null,
        Nbd: not { Export: null },
        Rbd: not ({ Pool: null } or { Namespace: null } or { Image: null } or { Conf: null } or { User: null }),
    };

    private static bool Whole(NetSpec? net) =>
        net is { Tap: not null, User: null or { Publish: not null } }
        && net.Addresses?.All(address => address is not null) != false && net.User?.Publish.All(port => port is not null) != false;

    // The serializer sets a member that is missing to null, whatever its type says: nothing behind this looks for that.
    private static bool Whole(VmSpec spec)
    {
        bool whole = spec.Name is not null && spec.Boot is { Kernel: not null, Cmdline: not null } && spec.Disks is not null;
        for (int i = 0; whole && i < spec.Disks!.Count; i++)
        {
            whole = Whole(spec.Disks[i]);
        }

        if (spec.Cpu is { } cpu)
        {
            whole &= cpu is { Model: not null, Features: not null };
            for (int i = 0; whole && i < cpu.Features!.Count; i++)
            {
                whole = cpu.Features[i] is not null;
            }
        }

        for (int i = 0; whole && i < spec.Devices.Count; i++)
        {
            whole = spec.Devices[i] is not null;
        }

        for (int i = 0; whole && i < spec.Shares.Count; i++)
        {
            whole = spec.Shares[i] is { Path: not null };
        }

        whole &= spec.Smbios?.OemStrings?.All(text => text is not null) != false;
        whole &= spec.Nets is not null && spec.Vsock is null or { Path: not null };
        for (int i = 0; whole && i < spec.Nets!.Count; i++)
        {
            whole = Whole(spec.Nets[i]);
        }

        if (spec.Numa is { } numa)
        {
            whole &= numa.Vnodes is not null;
            for (int i = 0; whole && i < numa.Vnodes!.Count; i++)
            {
                whole = numa.Vnodes[i] is { Cpus: not null, HostNodes: not null };
            }

            whole &= Whole(numa.Distances) && Whole(numa.Latencies) && Whole(numa.Bandwidths);
        }

        return whole;
    }
}
