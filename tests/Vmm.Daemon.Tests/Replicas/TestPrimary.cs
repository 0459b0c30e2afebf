using System.Net.Http.Headers;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Vmm.Contracts.Rest;
using Vmm.Storage.Replicas;

namespace Vmm.Daemon.Tests.Replicas;

/// <summary>
/// A primary without a vmmd: raw disks that a test writes, cut by the storage that a real one uses, and sent by hand, so that a test may
/// send anything.
/// </summary>
internal sealed class TestPrimary : IDisposable
{
    internal const int DiskBytes = 1 << 20;

    private readonly string _folder;
    private readonly ReplicaSpool _spool;
    private Guid _parent;

    /// <param name="folder">Where its files are; the kernel that its spec names is there.</param>
    /// <param name="http">Talks to the recovery site.</param>
    /// <param name="name">The VM.</param>
    internal TestPrimary(string folder, HttpClient http, string name = "web1")
    {
        _folder = Path.Combine(folder, "primary-" + name);
        (Http, Name) = (http, name);
        Directory.CreateDirectory(_folder);
        _spool = ReplicaSpool.Open(Path.Combine(_folder, "spool"), Path.Combine(_folder, "trees"));
        foreach (string disk in Disks)
        {
            File.WriteAllBytes(PathOf(disk), new byte[DiskBytes]);
        }

        Spec = $"""
            name: {name}
            boot:
              kernel: {Path.Combine(folder, "kernel")}
            disks:
              - path: /there/root.img
                serial: A1
              - path: /there/data.img
            nets:
              - bridge: br-there

            """;
    }

    internal static string[] Disks { get; } = ["disk0", "disk1"];

    internal HttpClient Http { get; }

    internal string Name { get; }

    internal string Vm { get; set; } = Guid.NewGuid().ToString();

    internal string Generation { get; set; } = Guid.NewGuid().ToString();

    internal string Spec { get; set; }

    internal ReplicaKeep Keep { get; set; } = new();

    internal string Site => "/api/v1/replication/" + Vm;

    /// <summary>SHA-256 of each disk at each point, by the point's id.</summary>
    internal Dictionary<string, string[]> History { get; } = new(StringComparer.Ordinal);

    internal ReplicaOffer Offer => new(
        Vm, Name, "host-a", new ReplicaGenerations(Generation), [.. Disks.Select(disk => new ReplicaDisk(disk, DiskBytes))], Keep);

    /// <summary>The guest writes.</summary>
    internal void Write(int seed)
    {
        Random random = new(seed);
        foreach (string disk in Disks)
        {
            using FileStream file = new(PathOf(disk), FileMode.Open);
            byte[] bytes = new byte[random.Next(1, 100_000)];
            random.NextBytes(bytes);
            file.Position = random.Next(DiskBytes - bytes.Length);
            file.Write(bytes);
        }
    }

    internal SpooledPoint Cut(bool isLast = false, string? variables = null, DateTimeOffset? time = null)
    {
        CutWish wish = new()
        {
            Owner = Guid.Parse(Vm),
            Point = Guid.NewGuid(),
            Parent = _parent,
            Generation = Guid.Parse(Generation),
            Time = time ?? DateTimeOffset.UtcNow,
            IsLast = isLast,
            Spec = Spec,
            Variables = variables,
        };
        SpooledPoint point = CutMaker.Run(
            [.. Disks.Select(disk => new CutDisk(disk, PathOf(disk), "raw", ExtentSet.All("a test")))], wish, _spool);
        _parent = point.Point.Id;
        History[point.Point.Id.ToString()] = [.. Disks.Select(disk => Hash(File.ReadAllBytes(PathOf(disk))))];
        return point;
    }

    internal static ReplicaPointOffer OfferOf(SpooledPoint point) => new(
        point.Point.Id.ToString(), point.Point.Parent == Guid.Empty ? "" : point.Point.Parent.ToString(), point.Point.Generation.ToString(),
        point.Point.Time, point.Point.IsLast, point.Point.Spec,
        [.. point.Point.Disks.Select(disk => new ReplicaPointDisk(disk.Name, disk.Bytes, disk.Stored, disk.Seal, disk.Root, disk.Why))],
        point.Point.Quiesced, point.Point.Variables);

    internal static string Hash(byte[] content) => Convert.ToHexStringLower(SHA256.HashData(content));

    internal Task<ReplicaSiteInfo> PairAsync() => AskAsync(
        HttpMethod.Put, Site, JsonSerializer.Serialize(Offer, RestJson.Default.ReplicaOffer), RestJson.Default.ReplicaSiteInfo);

    internal Task<ReplicaSiteInfo> StatusAsync() => AskAsync(HttpMethod.Get, Site, null, RestJson.Default.ReplicaSiteInfo);

    internal Task<ReplicaSiteInfo> OfferAsync(ReplicaPointOffer offer) => AskAsync(
        HttpMethod.Post, Site + "/points", JsonSerializer.Serialize(offer, RestJson.Default.ReplicaPointOffer),
        RestJson.Default.ReplicaSiteInfo);

    internal async Task<ReplicaArrived> AppendAsync(string point, string disk, ulong offset, ReadOnlyMemory<byte> bytes)
    {
        using HttpRequestMessage request = new(HttpMethod.Put, $"{Site}/points/{point}/disks/{disk}?offset={offset}")
        {
            Content = new ReadOnlyMemoryContent(bytes),
        };
        request.Content.Headers.ContentType = new MediaTypeHeaderValue("application/octet-stream");
        return await ReadAsync(request, RestJson.Default.ReplicaArrived);
    }

    internal Task<ReplicaSiteInfo> SealAsync(string point) =>
        AskAsync(HttpMethod.Post, $"{Site}/points/{point}/seal", null, RestJson.Default.ReplicaSiteInfo);

    /// <summary>Writes, cuts, and sends all of it.</summary>
    internal async Task<SpooledPoint> ReplicateAsync(int seed, bool isLast = false, string? variables = null, DateTimeOffset? time = null)
    {
        Write(seed);
        SpooledPoint point = Cut(isLast, variables, time);
        await SendAsync(point);
        return point;
    }

    internal async Task SendAsync(SpooledPoint point)
    {
        string id = point.Point.Id.ToString();
        await OfferAsync(OfferOf(point));
        await SendBytesAsync(point);
        Assert.Null(await SealedAsync(id));
    }

    internal async Task SendBytesAsync(SpooledPoint point)
    {
        foreach (SealedDisk disk in point.Point.Disks)
        {
            byte[] bytes = await File.ReadAllBytesAsync(point.PathOf(disk.Name));
            for (int at = 0; at < bytes.Length; at += 100_000)
            {
                ReadOnlyMemory<byte> part = bytes.AsMemory(at, Math.Min(100_000, bytes.Length - at));
                Assert.Equal((ulong)(at + part.Length), (await AppendAsync(point.Point.Id.ToString(), disk.Name, (ulong)at, part)).Arrived);
            }
        }
    }

    /// <summary>Seals, and waits.</summary>
    /// <returns>Why nothing becomes of it; null: it is the newest point.</returns>
    internal async Task<string?> SealedAsync(string id)
    {
        await SealAsync(id);
        for (int i = 0; i < 2400; i++)
        {
            ReplicaSiteInfo now = await StatusAsync();
            if (now.Newest == id || now.Intake?.Problem is not null)
            {
                return now.Intake?.Problem;
            }

            await Task.Delay(25);
        }

        return "it is not sealed yet";
    }

    internal async Task<T> AskAsync<T>(HttpMethod method, string path, string? body, JsonTypeInfo<T> type)
    {
        using HttpRequestMessage request = new(method, path);
        request.Content = body is null ? null : new StringContent(body, Encoding.UTF8, "application/json");
        return await ReadAsync(request, type);
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private async Task<T> ReadAsync<T>(HttpRequestMessage request, JsonTypeInfo<T> type)
    {
        using HttpResponseMessage response = await Http.SendAsync(request);
        string text = await response.Content.ReadAsStringAsync();
        return response.IsSuccessStatusCode ? JsonSerializer.Deserialize(text, type)!
            : throw new VmmApiException(JsonSerializer.Deserialize(text, RestJson.Default.Problem)!);
    }

    private string PathOf(string disk) => Path.Combine(_folder, disk + ".img");
}
