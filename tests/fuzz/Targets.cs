using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Vmm.Contracts.Control;
using Vmm.Daemon.Api;
using Vmm.Daemon.Vms;
using Vmm.Spec;

namespace Vmm.Fuzz;

/// <summary>
/// What is fuzzed: each takes any bytes, refuses them in the one way that its callers know, or keeps what it promises of sound ones.
/// Anything else is a finding.
/// </summary>
internal static class Targets
{
    private const int MostDescriptors = 4;

    internal static IReadOnlyDictionary<string, Action<byte[]>> All { get; } =
        new Dictionary<string, Action<byte[]>>(StringComparer.Ordinal)
        {
            ["spec"] = Spec,
            ["disk"] = Disk,
            ["net"] = Net,
            ["frame"] = Frame,
            ["body"] = Body,
            ["qcow2"] = Qcow2Target.Run,
            ["moves"] = MovesTarget.Run,
            ["backup"] = BackupTarget.Run,
            ["changes"] = ChangesTarget.Run,
            ["replica"] = ReplicaTarget.Run,
        };

    // Made by the first input: what is instrumented may not run before the fuzzer is there.
    private static readonly Lazy<JsonTypeInfo[]> s_bodies = new(() =>
    [
        RequestJson.Default.BalancerWish, RequestJson.Default.CpuLimits, RequestJson.Default.DeviceLimits, RequestJson.Default.DiskRequest,
        RequestJson.Default.LogSettings, RequestJson.Default.MemoryWish, RequestJson.Default.RehomeRequest, RequestJson.Default.TokenWish,
    ]);

    /// <summary>A sound spec goes to the worker as JSON, comes out the same, and can be given one more disk.</summary>
    private static void Spec(byte[] input)
    {
        string text = Encoding.UTF8.GetString(input);
        try
        {
            VmSpec spec = SpecReader.Read(text, "spec", "/folder");
            JsonElement json = VmSpecJson.Write(spec);
            VmSpec again = VmSpecJson.TryRead(json, out string problem)
                ?? throw new InvalidOperationException($"the worker does not take it: {problem}");
            Same(json.GetRawText(), VmSpecJson.Write(again).GetRawText());
            _ = SpecEdit.Add(text, "/folder", new DiskSpec { Path = "/folder/one-more" });
        }
        catch (SpecException e)
        {
            Bounded(e);
        }
    }

    private static void Disk(byte[] input)
    {
        try
        {
            DiskSpec disk = SpecReader.ReadDisk(Encoding.UTF8.GetString(input), "disk", "/folder");
            DiskSpec again = SpecReader.ReadDisk(SpecEdit.Item(disk), "disk", "/folder");
            Same(VmSpecJson.Write(disk).GetRawText(), VmSpecJson.Write(again).GetRawText());
        }
        catch (SpecException e)
        {
            Bounded(e);
        }
    }

    private static void Net(byte[] input)
    {
        try
        {
            NetSpec net = SpecReader.ReadNet(Encoding.UTF8.GetString(input), "net");
            Same(VmSpecJson.Write(net).GetRawText(), VmSpecJson.Write(SpecReader.ReadNet(SpecEdit.Item(net), "net")).GetRawText());
        }
        catch (SpecException e)
        {
            Bounded(e);
        }
    }

    /// <summary>A sound frame can be sent on as it is.</summary>
    private static void Frame(byte[] input)
    {
        for (int descriptors = 0; descriptors <= MostDescriptors; descriptors++)
        {
            if (ControlCodec.TryDecode(input, descriptors, out _) is { } frame)
            {
                byte[] sent = ControlCodec.Encode(frame);
                ControlFrame again = ControlCodec.TryDecode(sent, descriptors, out string problem)
                    ?? throw new InvalidOperationException(problem);
                Same(Convert.ToHexString(sent), Convert.ToHexString(ControlCodec.Encode(again)));
            }
        }
    }

    /// <summary>The first byte says of which route.</summary>
    private static void Body(byte[] input)
    {
        if (input.Length == 0)
        {
            return;
        }

        string text = Encoding.UTF8.GetString(input.AsSpan(1));
        try
        {
            switch (s_bodies.Value[input[0] % s_bodies.Value.Length])
            {
                case JsonTypeInfo<Contracts.Rest.BalancerWish> type: Kept(StrictJson.Read(text, type, "PUT /"), type); break;
                case JsonTypeInfo<CpuLimits> type: Kept(StrictJson.Read(text, type, "PUT /"), type); break;
                case JsonTypeInfo<DeviceLimits> type: Kept(StrictJson.Read(text, type, "PUT /"), type); break;
                case JsonTypeInfo<Contracts.Rest.DiskRequest> type: Kept(StrictJson.Read(text, type, "PUT /"), type); break;
                case JsonTypeInfo<Contracts.Rest.LogSettings> type: Kept(StrictJson.Read(text, type, "PUT /"), type); break;
                case JsonTypeInfo<MemoryWish> type: Kept(StrictJson.Read(text, type, "PUT /"), type); break;
                case JsonTypeInfo<Contracts.Rest.RehomeRequest> type: Kept(StrictJson.Read(text, type, "PUT /"), type); break;
                case JsonTypeInfo<Contracts.Rest.TokenWish> type: Kept(StrictJson.Read(text, type, "PUT /"), type); break;
                default: throw new InvalidOperationException("a body that this does not know");
            }
        }
        catch (ApiException e) when (e.Problem is { Status: 400, Code: "bad-request" })
        {
            Limit(e.Problem.Detail.Length, 2000);
        }
    }

    private static void Kept<T>(T value, JsonTypeInfo<T> type) where T : class
    {
        string json = JsonSerializer.Serialize(value, type).Replace(":null", ":0", StringComparison.Ordinal);
        Limit(json.Length, 8 << 20);
    }

    private static void Bounded(SpecException e)
    {
        Limit(e.Problems.Count, SpecException.MostProblems + 1);
        Limit(e.Message.Length, 200_000);
    }

    private static void Limit(int value, int most)
    {
        if (value > most)
        {
            throw new InvalidOperationException($"{value}, at most {most}");
        }
    }

    private static void Same(string one, string other)
    {
        if (!string.Equals(one, other, StringComparison.Ordinal))
        {
            throw new InvalidOperationException($"{one} became {other}");
        }
    }
}
