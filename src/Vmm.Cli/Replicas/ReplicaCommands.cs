using System.CommandLine;
using Vmm.Cli.Disks;
using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;

namespace Vmm.Cli.Replicas;

/// <summary><c>vmmctl replica …</c>, the verbs of the primary: names, options, help.</summary>
internal static class ReplicaCommands
{
    private const int LongestKeep = 24 * 366;

    internal static Command Create(GlobalOptions options)
    {
        Noun replica = new("replica", "Replication of VMs to a recovery site, seconds behind, with points to go back to", options);
        AddEnable(replica);
        AddStatus(replica);
        AddPause(replica);
        Argument<string> name = Name();
        replica.Add("resume", "Let replication go on before its pause is over", name, async (session, vm, cancellation) =>
            ReplicaView.Show(session, await session.Client.ResumeReplicaAsync(vm, cancellation).ConfigureAwait(false)));
        replica.Add("sync-now", "Cut now, and wait until the point is safe at the recovery site", name, (session, vm, cancellation) =>
            ReplicaVerbs.RunAsync(session, vm, "sync", cancellation));
        replica.Add("resync", "Compare hashes of all disks with the recovery site and send what differs; also after a fence", name,
            (session, vm, cancellation) => ReplicaVerbs.RunAsync(session, vm, "resync", cancellation));
        replica.Add("verify", "Compare hashes of the newest point with the recovery site, while replication goes on", name,
            (session, vm, cancellation) => ReplicaVerbs.RunAsync(session, vm, "verify", cancellation));
        replica.Add("disable", "End the replication of a VM; the points stay at the recovery site", name,
            async (session, vm, cancellation) =>
            {
                await session.Client.EndReplicaAsync(vm, cancellation).ConfigureAwait(false);
                if (!session.IsJson)
                {
                    await session.Out.WriteLineAsync($"{vm} is not replicated any more").ConfigureAwait(false);
                }

                return ExitCodes.Done;
            });
        RecoveryCommands.AddTo(replica);
        return replica.Command;
    }

    private static Argument<string> Name() => new("name") { Description = "Name of the VM" };

    private static void AddEnable(Noun replica)
    {
        Argument<string> name = Name();
        Option<string> to =
            new("--to") { Description = "The vmmd of the recovery site: https://HOST:PORT", HelpName = "url", Required = true };
        Option<string[]> disks = new("--disk")
        {
            Description = "disk0, disk1, …, once for each; without it, all that can be written",
            HelpName = "disk",
        };
        Option<string> interval = new("--interval")
        {
            Description = "Time between two cuts, 5s to 1h",
            HelpName = "time",
            DefaultValueFactory = _ => "30s",
        };
        Option<string> keep = new("--keep-all")
        {
            Description = "How long the recovery site keeps all points",
            HelpName = "time",
            DefaultValueFactory = _ => "1h",
        };
        Option<int> hourly = new("--hourly")
        {
            Description = "Of how many hours it keeps the newest point",
            HelpName = "number",
            DefaultValueFactory = _ => 24,
        };
        Option<int> daily = new("--daily")
        {
            Description = "Of how many days it keeps the newest point",
            HelpName = "number",
            DefaultValueFactory = _ => 7,
        };
        Option<string?> rate = new("--rate") { Description = "Most bytes to send in a second, e.g. 50MiB", HelpName = "size" };
        Option<bool> quiesce = new("--quiesce") { Description = "Each cut freezes the guest's file systems for a moment, by its agent" };
        replica.Add("enable", "Replicate a VM to a recovery site, or change how",
            [name, to, disks, interval, keep, hourly, daily, rate, quiesce],
            async (session, parsed, cancellation) =>
            {
                ReplicaWish wish = new(
                    parsed.GetValue(to)!,
                    parsed.GetValue(disks) is { Length: > 0 } some ? some : null,
                    Seconds("--interval", parsed.GetValue(interval), TimeSpan.FromHours(1)),
                    new ReplicaKeep(
                        Seconds("--keep-all", parsed.GetValue(keep), TimeSpan.FromHours(LongestKeep)) ?? 0,
                        parsed.GetValue(hourly),
                        parsed.GetValue(daily)),
                    parsed.GetValue(rate) is { } text ? DiskFileOptions.Size("--rate", text) : null,
                    parsed.GetValue(quiesce) ? 10 : null);
                ReplicaInfo made = await session.Client.ReplicateAsync(parsed.GetValue(name)!, wish, cancellation).ConfigureAwait(false);
                return session.Done(made, RestJson.Default.ReplicaInfo, $"{made.Vm} is replicated to {made.To} every "
                    + $"{DaemonSession.Number(made.IntervalSeconds)} s; 'vmmctl replica status {made.Vm}' tells how far it is");
            });
    }

    private static void AddStatus(Noun replica)
    {
        Argument<string?> name =
            new("name") { Description = "Name of the VM; without it, all", Arity = ArgumentArity.ZeroOrOne };
        replica.Add("status", "How replication goes: state, age of the newest point, what waits, what failed", [name],
            (session, parsed, cancellation) => ReplicaVerbs.StatusAsync(session, parsed.GetValue(name), cancellation));
    }

    private static void AddPause(Noun replica)
    {
        Argument<string> name = Name();
        Option<string> time = new("--for")
        {
            Description = "How long at most, to 168h; then it goes on by itself",
            HelpName = "time",
            DefaultValueFactory = _ => "1h",
        };
        Option<string?> reason = new("--reason") { Description = "Why, for others", HelpName = "text" };
        replica.Add("pause", "Let replication wait: nothing is cut or sent until then", [name, time, reason],
            async (session, parsed, cancellation) => ReplicaView.Show(session, await session.Client.PauseReplicaAsync(
                parsed.GetValue(name)!,
                new ReplicaPauseWish(parsed.GetValue(reason), Seconds("--for", parsed.GetValue(time), TimeSpan.FromDays(7))),
                cancellation).ConfigureAwait(false)));
    }

    private static int? Seconds(string option, string? text, TimeSpan most) =>
        TimeText.Read(option, text, most) is { } time ? Math.Max(1, (int)time.TotalSeconds) : null;
}
