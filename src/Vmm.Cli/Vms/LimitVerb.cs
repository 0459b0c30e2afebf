using Vmm.Cli.Remote;
using Vmm.Contracts.Control;
using Vmm.Machine.Spec;
using Vmm.Memory;

namespace Vmm.Cli.Vms;

/// <summary><c>vmmctl vm limit</c>: how much a disk or network device of a running VM may do in a second.</summary>
internal static class LimitVerb
{
    /// <param name="session">Where to ask.</param>
    /// <param name="name">The VM.</param>
    /// <param name="device"><c>disk0</c>, <c>net1</c>, …</param>
    /// <param name="bandwidth">Bytes a second; null is without end.</param>
    /// <param name="operations">Requests or frames a second; null is without end.</param>
    /// <param name="none">No limit at all.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    internal static async Task<int> RunAsync(DaemonSession session, string name, string device, string? bandwidth, long? operations, bool none, CancellationToken cancellation)
    {
        ulong? bytes = null;
        if (bandwidth is not null)
        {
            bytes = SpecText.TryParseSize(bandwidth, out ByteSize size) ? size : throw new UsageException($"--bandwidth {bandwidth}: expected a size such as 100MiB");
        }

        if (none == (bytes is not null || operations is not null) || bytes == 0 || operations <= 0)
        {
            throw new UsageException("vm limit: give --bandwidth, --operations or both, above zero; or --none");
        }

        await session.Client.LimitAsync(name, device, new DeviceLimits(bytes, (ulong?)operations), cancellation).ConfigureAwait(false);
        if (!session.IsJson)
        {
            await session.Out.WriteLineAsync($"{name}: {device} {(none ? "has no limit" : "is limited")}").ConfigureAwait(false);
        }

        return ExitCodes.Done;
    }
}
