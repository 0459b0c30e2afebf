using Vmm.Cli.Remote;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Memory;
using Vmm.Spec;
using static Vmm.Cli.Remote.DaemonSession;

namespace Vmm.Cli.Vms;

/// <summary><c>vmmctl vm memory</c>: what each vnode has, and asking for more or less.</summary>
internal static class MemoryView
{
    /// <param name="session">Where to ask.</param>
    /// <param name="name">The VM.</param>
    /// <param name="vnode">The vnode to change.</param>
    /// <param name="size">All memory it shall have; null to leave it.</param>
    /// <param name="auto">The balancer decides about the vnode again.</param>
    /// <param name="balloon">Size the balloon shall have; null to leave it.</param>
    /// <param name="force">The guest is asked for all of it at once, whatever it has left.</param>
    /// <param name="timeout">Seconds to wait for the guest.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    internal static async Task<int> RunAsync(DaemonSession session, string name, int vnode, string? size, bool auto, string? balloon,
        bool force, int timeout, CancellationToken cancellation)
    {
        ulong? bytes = Bytes(size, "--size"), balloonBytes = Bytes(balloon, "--balloon");
        if (timeout is < 0 or > 600)
        {
            throw new UsageException($"--timeout {timeout}: expected 0 to 600 seconds");
        }

        if (auto && bytes is not null)
        {
            throw new UsageException("vm memory: give either --size or --auto");
        }

        if (force && bytes is null)
        {
            throw new UsageException("vm memory: --force is about a --size");
        }

        bool change = bytes is not null || balloonBytes is not null || auto;
        VmMemory memory = change
            ? await session.Client.ChangeMemoryAsync(
                name,
                new MemoryWish(vnode, bytes, balloonBytes, auto ? true : null, force ? true : null),
                TimeSpan.FromSeconds(timeout),
                cancellation).ConfigureAwait(false)
            : await session.Client.MemoryAsync(name, cancellation).ConfigureAwait(false);
        if (session.IsJson)
        {
            session.Json(memory, RestJson.Default.VmMemory);
        }
        else
        {
            Show(session, memory);
        }

        if (!change || memory.Settled)
        {
            return ExitCodes.Done;
        }

        session.Fail($"{name}: the guest did not get there in {timeout} s; it goes on, 'vmmctl vm memory {name}' shows how far it is");
        return ExitCodes.Failed;
    }

    private static void Show(DaemonSession session, VmMemory memory)
    {
        Table table = new("VNODE", "ASKED", "PRESENT", "LEAST", "MOST", "NOT GIVEN BACK", "DRIVER");
        foreach (VnodeMemoryInfo info in memory.Vnodes)
        {
            table.Add(Number(info.Vnode), Size(info.AskedBytes), Size(info.PresentBytes), Size(info.LeastBytes), Size(info.MostBytes),
                info.StuckBytes == 0 ? "-" : Size(info.StuckBytes), info.MostBytes > info.LeastBytes ? info.Driven ? "yes" : "no"
                    : memory is { Balloon: not null, Vnodes.Count: 1 } ? "balloon"
                    : "fixed");
        }

        session.Table(table);
        foreach (VnodeMemoryInfo info in memory.Vnodes.Where(v => v.HeldBackBytes > 0))
        {
            session.Out.WriteLine(
                $"vnode {Number(info.Vnode)}: not yet asked for {Size(info.HeldBackBytes)} of it: the guest "
                + $"{(memory.Balloon?.AvailableBytes is { } left ? $"has {Size(left)} available, " : "")}would have too little left "
                + "(--force asks all the same)");
        }

        if (memory.Balloon is { } balloon)
        {
            string below = memory.Vnodes is [{ BelowBytes: > 0 } vnode]
                ? $" (to bring vnode {vnode.Vnode} below {Size(vnode.LeastBytes)})"
                : "";
            session.Out.WriteLine(
                $"balloon: asked {Size(balloon.TargetBytes)}{below}, has "
                + $"{Size(balloon.ActualBytes)}"
                + (balloon.FreeBytes is { } free
                    ? $"; guest free {Size(free)}{(balloon.SaidMsAgo >= 10_000 ? $" ({balloon.SaidMsAgo / 1000} s ago)" : "")}"
                    : ""));
        }
    }

    private static ulong? Bytes(string? text, string option) =>
        text is null ? null
        : SpecText.TryParseSize(text, out ByteSize size) ? size
        : throw new UsageException($"{option} {text}: expected a size such as 512MiB or 1.5GiB, a whole number of bytes");
}
