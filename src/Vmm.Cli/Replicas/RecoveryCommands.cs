using System.CommandLine;
using Vmm.Cli.Nouns;
using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;

namespace Vmm.Cli.Replicas;

/// <summary><c>vmmctl replica …</c>, the verbs of the recovery site: names, options, help.</summary>
internal static class RecoveryCommands
{
    /// <summary>Adds them to the noun.</summary>
    internal static void AddTo(Noun replica)
    {
        Argument<string> name = new("name") { Description = "Name of the VM at the primary" };
        replica.Add("points", "At the recovery site: the points that a VM of another host can go on from, and who stands on them", name,
            async (session, vm, cancellation) =>
                RecoveryView.Points(session, await session.Client.RecoveryAsync(vm, cancellation).ConfigureAwait(false)));
        replica.Add("show", "At the recovery site: how a replica stands", name, async (session, vm, cancellation) =>
            RecoveryView.Show(session, await session.Client.RecoveryAsync(vm, cancellation).ConfigureAwait(false)));
        AddTest(replica, name);
        AddFailover(replica, name);
        replica.Add("commit", "Make a failover final: this host has the VM from now on", name, async (session, vm, cancellation) =>
            RecoveryView.Show(session, await session.Client.CommitFailoverAsync(vm, cancellation).ConfigureAwait(false)));
        replica.Add("cancel", "Take a failover back: its VM goes with what it wrote, and points are taken again", name,
            (session, vm, cancellation) => EndAsync(session, session.Client.CancelFailoverAsync(vm, cancellation), cancellation));
        AddVerify(replica, name);
        replica.Add("delete", "At the recovery site: delete a replica with all its points", name, async (session, vm, cancellation) =>
        {
            await session.Client.DeleteReplicaAsync(vm, cancellation).ConfigureAwait(false);
            return await SayAsync(session, $"the replica of {vm} is deleted").ConfigureAwait(false);
        });
    }

    private static void AddTest(Noun replica, Argument<string> name)
    {
        Option<int?> point = Point();
        Option<string?> network = new("--network")
        {
            Description = "Private network that its network devices are on; without it, it has none",
            HelpName = "network",
        };
        Option<string?> other = new("--as") { Description = "Name of the VM [default: NAME-test-1 and on]", HelpName = "vm" };
        Option<bool> rest = Rest();
        Option<string?> remove = new("--remove") { Description = "Remove the VM of a test, with its disks", HelpName = "vm" };
        replica.Add("test-failover", "Make another VM of a point, beside the VM and apart from its networks; replication goes on",
            [name, point, network, other, rest, remove],
            async (session, parsed, cancellation) =>
            {
                string vm = parsed.GetValue(name)!;
                if (parsed.GetValue(remove) is not { } gone)
                {
                    FailoverWish wish = new(
                        parsed.GetValue(point), parsed.GetValue(network), parsed.GetValue(other), Start: Start(parsed.GetValue(rest)));
                    return await EndAsync(session, session.Client.TestFailoverAsync(vm, wish, cancellation), cancellation)
                        .ConfigureAwait(false);
                }

                Option[] odd = [point, network, other, rest];
                if (Array.Find(odd, option => parsed.GetResult(option) is { Implicit: false }) is { } given)
                {
                    throw new UsageException($"{given.Name}: not with --remove");
                }

                await session.Client.DeleteTestAsync(vm, gone, cancellation).ConfigureAwait(false);
                return await SayAsync(session, $"{gone} is removed").ConfigureAwait(false);
            });
    }

    private static void AddFailover(Noun replica, Argument<string> name)
    {
        Option<int?> point = Point();
        Option<string[]> networks = new("--network")
        {
            Description = "A network or bridge at the primary, and what it is here: FROM=TO, once for each that differs",
            HelpName = "from=to",
        };
        Option<string?> other = new("--as") { Description = "Name of the VM here [default: the same]", HelpName = "vm" };
        Option<string?> confirm = new("--confirm")
        {
            Description = "The VM's name: needed when what the primary has written since the point would be lost",
            HelpName = "name",
        };
        Option<bool> rest = Rest();
        replica.Add("failover", "Let the VM go on at the recovery site, as it was at a point; until 'commit' that can be cancelled",
            [name, point, networks, other, confirm, rest],
            (session, parsed, cancellation) => EndAsync(
                session,
                session.Client.FailoverAsync(
                    parsed.GetValue(name)!,
                    new FailoverWish(
                        parsed.GetValue(point),
                        null,
                        parsed.GetValue(other),
                        parsed.GetValue(networks) is { Length: > 0 } some ? some : null,
                        Start(parsed.GetValue(rest)),
                        parsed.GetValue(confirm)),
                    cancellation),
                cancellation));
    }

    private static void AddVerify(Noun replica, Argument<string> name)
    {
        Option<int?> point = Point();
        replica.Add("check", "At the recovery site: read all of a point, and compare its hashes", [name, point],
            (session, parsed, cancellation) => EndAsync(
                session,
                session.Client.VerifyReplicaPointAsync(parsed.GetValue(name)!, new FailoverWish(parsed.GetValue(point)), cancellation),
                cancellation));
    }

    private static Option<int?> Point() =>
        new("--point") { Description = "Number of the point [default: the newest]", HelpName = "number" };

    private static Option<bool> Rest() => new("--no-start") { Description = "Make the VM, and do not start it" };

    private static bool? Start(bool rest) => rest ? false : null;

    private static async Task<int> EndAsync(DaemonSession session, Task<JobInfo> begun, CancellationToken cancellation)
    {
        JobInfo job = await begun.ConfigureAwait(false);
        JobInfo ended = await JobFollower.LastAsync(session, job.Id, cancellation).ConfigureAwait(false);
        return await JobFollower.EndAsync(session, ended, null, cancellation).ConfigureAwait(false);
    }

    private static async Task<int> SayAsync(DaemonSession session, string what)
    {
        if (!session.IsJson)
        {
            await session.Out.WriteLineAsync(what).ConfigureAwait(false);
        }

        return ExitCodes.Done;
    }
}
