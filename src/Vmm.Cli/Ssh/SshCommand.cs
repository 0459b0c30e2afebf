using System.CommandLine;
using Vmm.Cli.Remote;
using Vmm.Cli.Vms;
using Vmm.Contracts.Rest;
using Vmm.LifeCycle;

namespace Vmm.Cli.Ssh;

/// <summary><c>vmmctl ssh NAME</c>: the system's ssh, to where a VM is reached, as the usual user of its image.</summary>
internal static class SshCommand
{
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
        Command ssh = new("ssh", "A shell in a guest, or a command of it, by the ssh of this machine") { name, words, user, identity };
        Noun.Act(ssh, options, (session, parsed, cancellation) => RunAsync(
            session, parsed.GetValue(name)!, parsed.GetValue(user), parsed.GetValue(identity), parsed.GetValue(words) ?? [], cancellation));
        return ssh;
    }

    private static async Task<int> RunAsync(
        DaemonSession session, string name, string? user, string? identity, string[] words, CancellationToken cancellation)
    {
        if (session.IsJson)
        {
            throw new UsageException("ssh: what a guest says is no JSON: leave -o out");
        }

        string program = SshProgram.Find();
        VmInfo vm = await session.Client.ShowAsync(name, cancellation).ConfigureAwait(false);
        if (vm.State != VmState.Running)
        {
            throw new VmmApiException("wrong-state", vm.State switch
            {
                VmState.Paused => $"{name} is paused: 'vmmctl vm resume {name}' lets it go on",
                VmState.Saved => $"{name} is saved in {vm.SavedIn}: 'vmmctl vm restore {vm.SavedIn}' goes on with it",
                _ => $"{name} is {vm.State.Word()}: start it with 'vmmctl vm start {name}'",
            });
        }

        SshTarget target = await SshTarget.FindAsync(session, vm, cancellation).ConfigureAwait(false);
        user ??= await SshUser.OfAsync(session.Client, name, cancellation).ConfigureAwait(false);
        return await SshProgram.RunAsync(program, SshProgram.Arguments(vm.Id, target, user, identity, words)).ConfigureAwait(false);
    }
}
