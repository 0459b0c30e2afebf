using System.CommandLine;
using Vmm.Cli.Generate;
using Vmm.Cli.Nouns;
using Vmm.Spec;

namespace Vmm.Cli;

/// <summary>The command tree: names, options, help. What the commands do is in <see cref="Application"/>.</summary>
internal static class CommandTree
{
    internal static RootCommand Create(Application application)
    {
        RootCommand root = new("vmmctl: virtual machines on KVM");
        GlobalOptions options = new();
        options.AddTo(root);
        root.Subcommands.Add(RunCommand.Create(_ => application.Run()));
        root.Subcommands.Add(Vms.VmCommands.Create(options, application));
        root.Subcommands.Add(Ssh.SshCommand.Create(options));
        root.Subcommands.Add(HostCommands.Create(options, application));
        root.Subcommands.Add(DiskCommands.Create(options));
        root.Subcommands.Add(Disks.BackupCommands.Create(options));
        root.Subcommands.Add(Replicas.ReplicaCommands.Create(options));
        root.Subcommands.Add(ImageCommands.Create(options));
        root.Subcommands.Add(NetworkCommands.Create(options));
        root.Subcommands.Add(JobCommands.Create(options));
        root.Subcommands.Add(TokenCommands.Create(options));
        root.Subcommands.Add(EventView.Create(options));
        root.Subcommands.Add(Spec(application));
        Command version = new("version", "Print the version");
        version.SetAction(_ => application.Version());
        root.Subcommands.Add(version);
        foreach (Command local in root.Subcommands.Where(command => !AsksDaemon(command.Name)))
        {
            options.RefuseOn(local);
        }

        root.Subcommands.Add(GenerateCommands.Generate(root));
        root.Subcommands.Add(GenerateCommands.Complete(options));
        return root;
    }

    /// <summary>False for the commands that do their work here; the options that name a daemon are refused there.</summary>
    internal static bool AsksDaemon(string command) => command is not ("run" or "spec" or "version");

    private static Command Spec(Application application)
    {
        Argument<string> file = new("file") { Description = "The spec file", HelpName = "file" };
        Command validate = new("validate", "Check a VM spec and list every problem with its line") { file };
        validate.SetAction(parsed => application.ValidateSpec(parsed.GetValue(file)!));
        Command schema = new("schema", "Print the JSON schema of a VM spec");
        schema.SetAction(_ => application.Schema());
        return new Command("spec", "VM spec files") { validate, schema };
    }
}
