using Vmm.Cli.Remote;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Cli.Vms;

/// <summary>What the options of <c>vm limit</c> say.</summary>
/// <param name="Bandwidth">Bytes a second; null is without end.</param>
/// <param name="Operations">Requests or frames a second; null is without end.</param>
/// <param name="Quota">Percent of one CPU; null is without end.</param>
/// <param name="Weight">Share of CPUs; null is the usual one.</param>
/// <param name="None">No limit at all.</param>
internal sealed record LimitWish(string? Bandwidth, long? Operations, string? Quota, int? Weight, bool None);

/// <summary>
/// <c>vmmctl vm limit</c>: how much a disk or network device of a running VM may do in a second, and how much time on CPUs the whole VM
/// gets.
/// </summary>
internal static class LimitVerb
{
    private const string Cpu = "cpu";

    /// <param name="session">Where to ask.</param>
    /// <param name="name">The VM.</param>
    /// <param name="device"><c>disk0</c>, <c>net1</c>, …, or <c>cpu</c>.</param>
    /// <param name="wish">The limits.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    internal static Task<int> RunAsync(DaemonSession session, string name, string device, LimitWish wish, CancellationToken cancellation)
    {
        bool cpu = string.Equals(device, Cpu, StringComparison.Ordinal);
        return cpu ? LimitCpuAsync(session, name, wish, cancellation) : LimitDeviceAsync(session, name, device, wish, cancellation);
    }

    private static async Task<int> LimitDeviceAsync(
        DaemonSession session, string name, string device, LimitWish wish, CancellationToken cancellation)
    {
        ulong? bytes = null;
        if (wish.Bandwidth is { } bandwidth)
        {
            bytes = SpecText.TryParseSize(bandwidth, out ByteSize size)
                ? size
                : throw new UsageException($"--bandwidth {bandwidth}: expected a size such as 100MiB");
        }

        if ((wish.Quota ?? (object?)wish.Weight) is not null)
        {
            throw new UsageException($"vm limit: --quota and --weight go with cpu, not with {device}");
        }

        if (wish.None == (bytes is not null || wish.Operations is not null) || bytes == 0 || wish.Operations <= 0)
        {
            throw new UsageException("vm limit: give --bandwidth, --operations or both, above zero; or --none");
        }

        await session.Client.LimitAsync(name, device, new DeviceLimits(bytes, (ulong?)wish.Operations), cancellation).ConfigureAwait(false);
        if (!session.IsJson)
        {
            await session.Out.WriteLineAsync($"{name}: {device} {(wish.None ? "has no limit" : "is limited")}").ConfigureAwait(false);
        }

        return ExitCodes.Done;
    }

    private static async Task<int> LimitCpuAsync(DaemonSession session, string name, LimitWish wish, CancellationToken cancellation)
    {
        int? quota = null;
        if (wish.Quota is { } text)
        {
            quota = SpecText.TryParsePercent(text, out int percent)
                ? percent
                : throw new UsageException($"--quota {text}: expected percent of one CPU, such as 150%");
        }

        if ((wish.Bandwidth ?? (object?)wish.Operations) is not null)
        {
            throw new UsageException("vm limit: --bandwidth and --operations go with a disk or network device, not with cpu");
        }

        if (wish.None == (quota is not null || wish.Weight is not null))
        {
            throw new UsageException("vm limit: give --quota, --weight or both; or --none");
        }

        VmCpu cpu = await session.Client.LimitCpuAsync(name, new CpuLimits(quota, wish.Weight), cancellation).ConfigureAwait(false);
        return session.Done(cpu, RestJson.Default.VmCpu,
            $"{name}: cpu: {(cpu.QuotaPercent is { } most ? $"quota {most}%" : "no quota")}, weight {cpu.Weight}");
    }
}
