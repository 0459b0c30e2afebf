using System.CommandLine;
using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;

namespace Vmm.Cli.Vms;

/// <summary><c>vmmctl vm upgrade</c>, <c>vm migrate</c> and <c>vm settle</c>: names, options, help.</summary>
internal static class MoveCommands
{
    internal static void AddTo(Noun vm)
    {
        AddUpgrade(vm);
        AddMigrate(vm);
        AddSettle(vm);
    }

    private static void AddUpgrade(Noun vm)
    {
        Argument<string?> name = VmCommands.OptionalName();
        Option<bool> all = new("--all") { Description = "All VMs that run or are paused, one after the other" };
        Option<string?> downtime = Downtime("50ms"), timeout = Timeout();
        Option<string> late = Late();
        vm.Add("upgrade", "Let a VM go on in a new worker, of the release that vmmd is of; its guest notices nothing",
            [name, all, downtime, timeout, late], (session, parsed, cancellation) =>
            {
                UpgradeRequest request = new(
                    Milliseconds(parsed.GetValue(downtime)), Seconds(parsed.GetValue(timeout)),
                    parsed.GetValue(late) is "force" ? true : null);
                return (parsed.GetValue(name), parsed.GetValue(all)) switch
                {
                    (null, true) => MoveVerbs.UpgradeAllAsync(session, request, cancellation),
                    ({ } one, false) => MoveVerbs.UpgradeAsync(session, one, request, cancellation),
                    _ => throw new UsageException("vm upgrade: give the name of a VM, or --all"),
                };
            });
    }

    private static void AddMigrate(Noun vm)
    {
        Argument<string> name = VmCommands.Name();
        Option<string> to = new("--to") { Description = "Its vmmd: https://HOST:PORT", HelpName = "url", Required = true };
        Option<string?> downtime = Downtime("300ms"), timeout = Timeout();
        Option<string> late = Late();
        vm.Add("migrate", "Let a VM go on on another host, with the disks it has, which both hosts reach",
            [name, to, downtime, timeout, late], (session, parsed, cancellation) => MoveVerbs.MigrateAsync(
                session, parsed.GetRequiredValue(name),
                new MigrateRequest(
                    parsed.GetRequiredValue(to), Milliseconds(parsed.GetValue(downtime)), Seconds(parsed.GetValue(timeout)),
                    parsed.GetValue(late) is "force" ? true : null),
                cancellation));
    }

    private static void AddSettle(Noun vm)
    {
        Argument<string> name = VmCommands.Name();
        Option<string> where = new("--where") { Description = "Where the VM is: here, or there, on the other host", Required = true };
        where.AcceptOnlyFromAmong(SettleRequest.Here, SettleRequest.There);
        Option<string> confirm = new("--confirm")
        {
            Description = "The VM's name once more: two hosts that run it write the same disks",
            HelpName = "name",
            Required = true,
        };
        vm.Add("settle", "Say where a VM is that was handed over to a host which is lost for good",
            [name, where, confirm], (session, parsed, cancellation) => MoveVerbs.SettleAsync(
                session, parsed.GetRequiredValue(name),
                new SettleRequest(parsed.GetRequiredValue(where), parsed.GetRequiredValue(confirm)), cancellation));
    }

    private static Option<string> Late()
    {
        Option<string> late = new("--on-timeout")
        {
            Description = "When that time is over: give it up, or stop the guest for as long as it takes",
            DefaultValueFactory = _ => "cancel",
        };
        late.AcceptOnlyFromAmong("cancel", "force");
        return late;
    }

    private static Option<string?> Downtime(string otherwise) => new("--max-downtime")
    {
        Description = $"How long the guest may stand still, {otherwise} by default",
        HelpName = "time",
    };

    private static Option<string?> Timeout() => new("--timeout")
    {
        Description = "How long it may take until the guest is stopped for it, 10m by default",
        HelpName = "time",
    };

    private static int? Milliseconds(string? text) =>
        (int?)TimeText.Read("--max-downtime", text, TimeSpan.FromMilliseconds(MoveLimits.MostDowntime))?.TotalMilliseconds;

    private static int? Seconds(string? text) =>
        TimeText.Read("--timeout", text, TimeSpan.FromSeconds(MoveLimits.MostTimeout)) is { } time
            ? (int)Math.Ceiling(time.TotalSeconds)
            : null;
}
