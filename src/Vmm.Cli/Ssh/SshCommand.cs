using System.CommandLine;
using Vmm.Cli.Remote;
using Vmm.Cli.Vms;
using Vmm.Contracts.Rest;

namespace Vmm.Cli.Ssh;

/// <summary><c>vmmctl ssh NAME</c>: the system's ssh, to where a VM is reached, as the usual user of its image.</summary>
internal static class SshCommand
{
    private const int UsualWait = 180, MostWait = 3600;

    internal static Command Create(GlobalOptions options)
    {
        Argument<string> name = VmCommands.Name();
        Argument<string[]> words = new("command")
        {
            Description = "Command for the guest, best after --; without one a shell",
            Arity = ArgumentArity.ZeroOrMore,
        };
        Option<string?> user = new("--user", "-l") { Description = "As whom; else the usual user of the VM's image", HelpName = "name" };
        Option<string?> identity = new("--identity", "-i") { Description = "File of the private key", HelpName = "file" };
        Option<int> wait = new("--wait")
        {
            Description = "Seconds to wait for a guest that boots still; 0 does not look",
            HelpName = "seconds",
            DefaultValueFactory = _ => UsualWait,
        };
        wait.Validators.Add(result =>
        {
            if (result.Tokens.Count == 1 && int.TryParse(result.Tokens[0].Value, out int seconds) && seconds is < 0 or > MostWait)
            {
                result.AddError($"--wait: {seconds}, expected 0 to {MostWait} seconds");
            }
        });
        Command ssh = new("ssh", "A shell in a guest, or a command of it, by the ssh of this machine")
        {
            name, words, user, identity, wait,
        };
        Noun.Act(ssh, options, (session, parsed, cancellation) => RunAsync(
            session, parsed.GetValue(name)!, parsed.GetValue(user), parsed.GetValue(identity), parsed.GetValue(words) ?? [],
            TimeSpan.FromSeconds(parsed.GetValue(wait)), cancellation));
        return ssh;
    }

    private static async Task<int> RunAsync(
        DaemonSession session, string name, string? user, string? identity, string[] words, TimeSpan patience,
        CancellationToken cancellation)
    {
        if (session.IsJson)
        {
            throw new UsageException("ssh: what a guest says is no JSON: leave -o out");
        }

        string program = SshProgram.Find();
        SshTarget target = await new SshWait(session, name, patience).TargetAsync(cancellation).ConfigureAwait(false);
        string id = (await session.Client.ShowAsync(name, cancellation).ConfigureAwait(false)).Id;
        user ??= await SshUser.OfAsync(session.Client, name, cancellation).ConfigureAwait(false);
        return await SshProgram.RunAsync(program, SshProgram.Arguments(id, target, user, identity, words)).ConfigureAwait(false);
    }
}
