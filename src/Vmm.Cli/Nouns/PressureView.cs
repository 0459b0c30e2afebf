using System.Globalization;
using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;
using static Vmm.Cli.Remote.DaemonSession;

namespace Vmm.Cli.Nouns;

/// <summary><c>vmmctl host pressure</c>: how the host's memory stands, and what the pressure loop did about it.</summary>
internal static class PressureView
{
    private const int Shown = 20;

    /// <param name="session">Where to ask.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    internal static async Task<int> RunAsync(DaemonSession session, CancellationToken cancellation)
    {
        PressureInfo info = await session.Client.PressureAsync(cancellation).ConfigureAwait(false);
        if (session.IsJson)
        {
            return session.Json(info, RestJson.Default.PressureInfo);
        }

        string waits = info.SomePercent is { } some
            ? string.Create(CultureInfo.InvariantCulture, $"{some:0.#} % of the time")
            : "not told by this kernel";
        await session.Out.WriteLineAsync(
            $"pressure loop: {(info.Enabled ? "on" : "off")}, {Number(info.Rounds)} rounds; {Size(info.ReserveBytes)} are to stay "
            + $"available\ntasks wait for memory: {waits}").ConfigureAwait(false);
        if (info.Problem is { } problem)
        {
            await session.Out.WriteLineAsync($"not read: {problem}").ConfigureAwait(false);
        }

        Table nodes = new("NODE", "TOTAL", "AVAILABLE");
        foreach (PressureNode node in info.Nodes)
        {
            nodes.Add(Number(node.Node), Size(node.TotalBytes), Size(node.AvailableBytes));
        }

        session.Table(nodes);
        Table vms = new("VM", "CONFIGURED", "IN FORCE", "LEAST", "RESIDENT", "BALLOON", "WEIGHT", "LEFT ALONE");
        foreach (PressureVm vm in info.Vms)
        {
            if (vm.LeftAlone is { } why)
            {
                vms.Add(vm.Vm, "-", "-", "-", "-", "-", "-", why);
                continue;
            }

            vms.Add(vm.Vm, Size(vm.ConfiguredBytes), Size(vm.LimitBytes), Size(vm.MinResidentBytes), Size(vm.ResidentBytes),
                vm.BalloonBytes == 0 ? "-" : Size(vm.BalloonBytes), Number(vm.Weight), "no");
        }

        session.Table(vms);
        foreach (PressureEntry entry in info.Decisions.TakeLast(Shown))
        {
            string failed = entry.Problem is { } cause ? $" (failed: {cause})" : "";
            await session.Out.WriteLineAsync(
                $"{Time(entry.At)} {entry.Vm} {entry.Means} {Size(entry.FromBytes)} -> {Size(entry.ToBytes)}{failed}: {entry.Reason}")
                .ConfigureAwait(false);
        }

        return ExitCodes.Done;
    }
}
