using System.Globalization;

namespace Vmm.Contracts.Control;

/// <summary>A counter of a kind of device: where people and monitoring find it.</summary>
/// <typeparam name="T">What a worker tells of one device.</typeparam>
/// <param name="Column">Its heading in <c>vmmctl vm stats</c>.</param>
/// <param name="Family">Its family in <c>/metrics</c>.</param>
/// <param name="Label">Its label in the family.</param>
/// <param name="Read">Its value; null: the worker does not tell.</param>
/// <param name="IsBytes">It counts bytes.</param>
public sealed record DeviceCounter<T>(
    string Column, MetricFamily Family, (string Name, string Value) Label, Func<T, long?> Read, bool IsBytes = false);

/// <summary>A family of <c>/metrics</c>.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Help">What it tells.</param>
/// <param name="IsGauge">It goes up and down.</param>
public sealed record MetricFamily(string Name, string Help, bool IsGauge = false);

/// <summary>The value of a counter of one device.</summary>
/// <param name="Column">Its heading.</param>
/// <param name="Family">Its family.</param>
/// <param name="Label">Its label in the family.</param>
/// <param name="Value">Null: the worker does not tell.</param>
/// <param name="IsBytes">It counts bytes.</param>
public readonly record struct CounterValue(
    string Column, MetricFamily Family, (string Name, string Value) Label, long? Value, bool IsBytes);

/// <summary>The counters of one device.</summary>
/// <param name="Device"><c>disk0</c>, …</param>
/// <param name="Counters">In the order of the kind.</param>
/// <param name="Notes">What else there is to say of it: heading and text.</param>
public sealed record DeviceCounters(
    string Device, IReadOnlyList<CounterValue> Counters, IReadOnlyList<(string Column, string Text)> Notes);

/// <summary>
/// What a kind of device counts. Tables for people, <c>/metrics</c> and the check of what a worker says are made from it: a new kind is a
/// record in <see cref="WorkerStats"/> and an entry in <see cref="All"/>.
/// </summary>
public sealed class DeviceStatsKind
{
    private static readonly MetricFamily s_diskRequests = new("vmm_disk_requests_total", "Requests"),
        s_diskBytes = new("vmm_disk_bytes_total", "Bytes"),
        s_diskErrors = new("vmm_disk_errors_total", "Failed requests"),
        s_diskNow = new("vmm_disk_requests", "Requests now: storage works on them, or they are held back", IsGauge: true),
        s_netPackets = new("vmm_net_packets_total", "Packets, from the guest's side"),
        s_netBytes = new("vmm_net_bytes_total", "Bytes, from the guest's side"),
        s_shareRequests = new("vmm_share_requests_total", "Requests that virtiofsd completed"),
        s_shareLosses = new("vmm_share_losses_total", "Times that virtiofsd was lost"),
        s_shareServed = new("vmm_share_connected", "1: a virtiofsd serves it", IsGauge: true);

    private readonly Func<WorkerStats, IReadOnlyList<DeviceCounters>> _read;

    private DeviceStatsKind(
        string kind, IReadOnlyList<MetricFamily> families, Func<WorkerStats, IReadOnlyList<DeviceCounters>> read) =>
        (Kind, Families, _read) = (kind, families, read);

    /// <summary>Every kind that counts something.</summary>
    public static IReadOnlyList<DeviceStatsKind> All { get; } =
    [
        Of<DiskStats>(
            "disk",
            stats => stats.Disks,
            disk => disk.Name,
            [
                new("READS", s_diskRequests, ("kind", "read"), d => d.ReadRequests),
                new("READ", s_diskBytes, ("kind", "read"), d => d.ReadBytes, IsBytes: true),
                new("WRITES", s_diskRequests, ("kind", "write"), d => d.WriteRequests),
                new("WRITTEN", s_diskBytes, ("kind", "write"), d => d.WrittenBytes, IsBytes: true),
                new("FLUSHES", s_diskRequests, ("kind", "flush"), d => d.Flushes),
                new("ERRORS", s_diskErrors, ("kind", "any"), d => d.Errors),
                new("IN FLIGHT", s_diskNow, ("state", "in-flight"), d => d.InFlight),
                new("HELD", s_diskNow, ("state", "held"), d => d.Held),
            ],
            disk => [("WAIT p99", Below(disk.Wait)), ("STORAGE p99", Below(disk.Storage))]),
        Of<NetStats>(
            "net",
            stats => stats.Nets,
            net => net.Name,
            [
                new("FRAMES IN", s_netPackets, ("kind", "received"), n => n.ReceivedPackets),
                new("IN", s_netBytes, ("kind", "received"), n => n.ReceivedBytes, IsBytes: true),
                new("FRAMES OUT", s_netPackets, ("kind", "sent"), n => n.SentPackets),
                new("OUT", s_netBytes, ("kind", "sent"), n => n.SentBytes, IsBytes: true),
                new("DROPPED", s_netPackets, ("kind", "dropped"), n => n.Dropped),
            ],
            net => [("MOVED BY", net.KernelTap is null ? "worker" : "kernel")]),
        Of<ShareStats>(
            "fs",
            stats => stats.Shares ?? [],
            share => share.Name,
            [
                new("REQUESTS", s_shareRequests, ("kind", "any"), s => s.Requests),
                new("LOSSES", s_shareLosses, ("kind", "any"), s => s.Losses),
                new("CONNECTED", s_shareServed, ("kind", "any"), s => s.Connected ? 1 : 0),
            ]),
    ];

    /// <summary><c>disk</c>, …: names of its devices begin with it.</summary>
    public string Kind { get; }

    /// <summary>Its families in <c>/metrics</c>.</summary>
    public IReadOnlyList<MetricFamily> Families { get; }

    /// <summary>Its devices and what they count, in guest order.</summary>
    public IReadOnlyList<DeviceCounters> Read(WorkerStats stats) => _read(stats);

    private static string Below(LatencyStats? stage) =>
        stage?.Below(0.99) is { } bound ? string.Create(CultureInfo.InvariantCulture, $"< {bound} µs") : "-";

    private static DeviceStatsKind Of<T>(
        string kind,
        Func<WorkerStats, IReadOnlyList<T>> devices,
        Func<T, string> name,
        IReadOnlyList<DeviceCounter<T>> counters,
        Func<T, IReadOnlyList<(string Column, string Text)>>? notes = null) =>
        new(kind, [.. counters.Select(c => c.Family).Distinct()], stats => [.. devices(stats).Select(device => new DeviceCounters(
            name(device),
            [.. counters.Select(c => new CounterValue(c.Column, c.Family, c.Label, c.Read(device), c.IsBytes))],
            notes?.Invoke(device) ?? []))]);
}
