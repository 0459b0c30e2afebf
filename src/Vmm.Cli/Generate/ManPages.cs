using System.CommandLine;
using System.Globalization;
using Vmm.Spec;

namespace Vmm.Cli.Generate;

/// <summary>The manual of vmmctl from its command definitions: vmmctl(1), a page per noun, and vmm-spec(5) from the schema.</summary>
internal static class ManPages
{
    private const string ExitStatus = "0: done. 1: failed; standard error says what, which object and what to do. 2: bad usage: an option, "
        + "a spec or a request is not sound. "
        + "A guest of vmmctl run that writes to the debug-exit port chooses its own code.";

    /// <summary>Writes the pages below <paramref name="folder"/>, one file each, e.g. <c>vmmctl-vm.1</c>.</summary>
    /// <returns>The files' names.</returns>
    /// <exception cref="IOException">The folder cannot be written.</exception>
    internal static IReadOnlyList<string> Write(Command root, string folder)
    {
        DateTimeOffset date = Date();
        List<(string File, string Text)> pages =
        [
            ("vmmctl.1", Overview(root, date)), ("vmm-spec.5", SpecPage.Write(SpecSchema.Json(), date))
        ];
        pages.AddRange(CommandShape.Visible(root).Select(command => ($"vmmctl-{command.Name}.1", Noun(root, command, date))));
        Directory.CreateDirectory(folder);
        foreach ((string file, string text) in pages)
        {
            File.WriteAllText(Path.Combine(folder, file), text);
        }

        return [.. pages.Select(page => page.File)];
    }

    private static string Overview(Command root, DateTimeOffset date)
    {
        RoffPage page = new("vmmctl", 1, date);
        page.Section("Name").Text("vmmctl - virtual machines on KVM")
            .Section("Synopsis").Synopsis("vmmctl", "[OPTIONS] NOUN VERB [ARGUMENTS]").Synopsis("vmmctl run", "[OPTIONS]")
            .Section("Description")
            .Text("vmmctl run starts one VM in the foreground. Every other command that works on VMs, disks, jobs and tokens asks the "
                + "daemon, vmmd(8), over its REST interface.")
            .Section("Commands");
        foreach (Command command in CommandShape.Visible(root))
        {
            page.Tagged("vmmctl " + command.Name, $"{FirstLine(command)}. See vmmctl-{command.Name}(1).");
        }

        Options(page, root, "Options");
        Ending(page);
        page.Section("Examples").Text("""
              vmmctl run --kernel vmlinuz --initrd initrd.img --cpus 4 --memory 2GiB
              vmmctl vm create -f web1.yaml --start
              vmmctl vm list
              vmmctl vm console web1
            """);
        page.Section("See also")
            .Text(string.Join(", ", CommandShape.Visible(root).Select(command => $"vmmctl-{command.Name}(1)")) + ", vmm-spec(5), vmmd(8)");
        return page.ToString();
    }

    private static string Noun(Command root, Command noun, DateTimeOffset date)
    {
        RoffPage page = new("vmmctl-" + noun.Name, 1, date);
        page.Section("Name").Text($"vmmctl-{noun.Name} - {FirstLine(noun)}").Section("Synopsis");
        Command[] verbs = [.. CommandShape.Visible(noun)];
        foreach (Command verb in verbs.Length == 0 ? [noun] : verbs)
        {
            page.Synopsis("vmmctl " + (verbs.Length == 0 ? noun.Name : $"{noun.Name} {verb.Name}"), Usage(verb));
        }

        if (verbs.Length == 0)
        {
            page.Section("Description").Text(noun.Description ?? "");
            Options(page, noun, "Options");
        }
        else
        {
            page.Section("Commands");
            foreach (Command verb in verbs)
            {
                Verb(page, verb);
            }
        }

        if (CommandTree.AsksDaemon(noun.Name))
        {
            Options(page, root, "Options of every command");
        }

        Ending(page);
        page.Section("See also").Text("vmmctl(1), vmm-spec(5), vmmd(8)");
        return page.ToString();
    }

    private static void Verb(RoffPage page, Command verb)
    {
        page.Subsection($"{verb.Name} {CommandShape.Arguments(verb)}".TrimEnd()).Text((verb.Description ?? "") + ".");
        foreach (Argument argument in verb.Arguments.Where(argument => !argument.Hidden && argument.Description is not null))
        {
            page.Tagged((argument.HelpName ?? argument.Name).ToUpperInvariant(), argument.Description + ".");
        }

        foreach (Option option in CommandShape.Options(verb).Where(option => !IsHelp(option)))
        {
            page.Tagged(CommandShape.Label(option), option.Description + ".");
        }
    }

    private static void Options(RoffPage page, Command command, string title)
    {
        page.Section(title);
        foreach (Option option in CommandShape.Options(command))
        {
            page.Tagged(CommandShape.Label(option), option.Description + ".");
        }
    }

    private static void Ending(RoffPage page)
    {
        page.Section("Exit status").Text(ExitStatus).Section("Environment");
        foreach ((string name, string text) in GlobalOptions.Environment)
        {
            page.Tagged(name, text + ".");
        }

        page.Section("Files").Tagged("/run/vmm/vmmd.sock", "Where vmmd listens; the group vmm may use it.");
    }

    private static string Usage(Command verb)
    {
        bool options = CommandShape.Options(verb).Any(option => !IsHelp(option));
        return $"{(options ? "[OPTIONS] " : "")}{CommandShape.Arguments(verb)}".TrimEnd();
    }

    private static bool IsHelp(Option option) => option is System.CommandLine.Help.HelpOption;

    private static string FirstLine(Command command) => (command.Description ?? "").Split('\n')[0].Split(". ")[0].TrimEnd('.');

    /// <summary>
    /// The same sources give the same pages: packaging says of when they are (reproducible-builds.org/specs/source-date-epoch).
    /// </summary>
    private static DateTimeOffset Date() =>
        long.TryParse(
            System.Environment.GetEnvironmentVariable("SOURCE_DATE_EPOCH"),
            NumberStyles.None,
            CultureInfo.InvariantCulture,
            out long seconds)
            ? DateTimeOffset.FromUnixTimeSeconds(seconds) : DateTimeOffset.UtcNow;
}
