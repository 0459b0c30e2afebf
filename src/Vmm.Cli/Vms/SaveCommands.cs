using System.CommandLine;
using Vmm.Cli.Remote;

namespace Vmm.Cli.Vms;

/// <summary><c>vmmctl vm save|restore|discard-saved</c>: names, options, help.</summary>
internal static class SaveCommands
{
    internal static void AddTo(Noun vm)
    {
        AddSave(vm);
        Argument<string> saved = new("folder") { Description = "Folder of the saved VM", HelpName = "dir" };
        Option<bool> lazy = new("--lazy")
        {
            Description = "Run it at once: its memory comes from the folder when it is used, and the rest by and by",
        };
        vm.Add("restore", "Go on with a VM where it was saved", [saved, lazy], (session, parsed, cancellation) =>
            SaveVerbs.RestoreAsync(session, parsed.GetValue(saved)!, parsed.GetValue(lazy), cancellation));
        vm.Add("discard-saved", "Forget where a VM is saved, so that it can boot anew; the folder stays", VmCommands.Name(),
            (session, name, cancellation) => VmVerbs.DoAsync(session, name, "discard-saved", cancellation));
    }

    private static void AddSave(Noun vm)
    {
        Argument<string> name = VmCommands.Name();
        Argument<string> folder =
            new("folder") { Description = "Folder to make, in a storage folder of the daemon's host", HelpName = "dir" };
        vm.Add("save", "Write a VM into a folder and end it; its disks stay where they are and must not change", [name, folder],
            (session, parsed, cancellation) =>
                SaveVerbs.SaveAsync(session, parsed.GetValue(name)!, parsed.GetValue(folder)!, cancellation));
    }
}
