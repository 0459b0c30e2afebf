using System.CommandLine;
using Vmm.Cli.Remote;
using Vmm.CommandLine.Seeds;
using Vmm.Contracts.Rest;
using Vmm.Spec.Seeds;
using static Vmm.Cli.Remote.DaemonSession;

namespace Vmm.Cli.Vms;

/// <summary>
/// <c>vmmctl vm seed</c>, and the same options of <c>vm create</c>: what a guest with cloud-init gets at its first start. Nothing of it is
/// shown, or is in an error.
/// </summary>
internal sealed class SeedVerb
{
    private readonly SeedOptions _content = new();
    private readonly Option<string?> _seed =
        new("--seed") { Description = "How long the daemon keeps it: keep [default], or once, for one run", HelpName = "once|keep" };

    /// <summary>In the order in which the help lists them.</summary>
    internal IReadOnlyList<Option> Options => [.. _content.All, _seed];

    internal static void AddTo(Noun vm)
    {
        SeedVerb verb = new();
        Argument<string> name = VmCommands.Name();
        Option<bool> remove = new("--remove") { Description = "Delete it; the VM must not run" };
        Symbol[] symbols = [name, .. verb.Options, remove];
        vm.Add("seed", "What a guest with cloud-init gets at its first start: whether there is one, give one, or delete it", symbols,
            (session, parsed, cancellation) =>
                verb.RunAsync(session, parsed, parsed.GetValue(name)!, parsed.GetValue(remove), cancellation));
    }

    /// <summary>What is asked for; null is nothing. Asks for a password when it is to.</summary>
    internal VmSeedWish? Read(ParseResult parsed)
    {
        SeedWish wish = _content.Read(parsed);
        string? keep = parsed.GetValue(_seed);
        if (keep is not (null or "once" or "keep"))
        {
            throw new UsageException($"--seed {keep}: expected once or keep");
        }

        if (!wish.IsGiven)
        {
            return keep is null ? null
                : throw new UsageException("--seed says how long a seed is kept: say what is in it (--ssh-key, --user-data, …)");
        }

        List<string> problems = [];
        SeedContent content = wish.ToContent(PasswordPrompt.Ask, problems) ?? throw new UsageException(string.Join('\n', problems));
        return new VmSeedWish(
            content.UserData, content.NetworkConfig, content.Keys.Count > 0 ? content.Keys : null, content.Hostname, content.PasswordHash,
            keep is "once" ? true : null);
    }

    private async Task<int> RunAsync(
        DaemonSession session, ParseResult parsed, string name, bool remove, CancellationToken cancellation)
    {
        VmSeedWish? wish = Read(parsed);
        if (remove)
        {
            if (wish is not null)
            {
                throw new UsageException("vm seed: --remove deletes the seed, and takes no other option");
            }

            await session.Client.DeleteSeedAsync(name, cancellation).ConfigureAwait(false);
        }

        VmSeedInfo seed = wish is not null
            ? await session.Client.PutSeedAsync(name, wish, cancellation).ConfigureAwait(false)
            : await session.Client.SeedAsync(name, cancellation).ConfigureAwait(false);
        return session.IsJson ? session.Json(seed, RestJson.Default.VmSeedInfo)
            : session.Properties(("seed", Word(seed.State)), ("kept", seed.State == VmSeedState.None ? "-" : seed.Once ? "once" : "keep"),
                ("size", Size((ulong)seed.SizeBytes)));
    }

    private static string Word(VmSeedState state) => state switch
    {
        VmSeedState.None => "none",
        VmSeedState.Ready => "ready for the next start",
        VmSeedState.Used => "used, and deleted when the VM is off or reboots",
        _ => "deleted, as its run is over",
    };
}
