using System.CommandLine;

namespace Vmm.CommandLine;

/// <summary>What man pages and the completion need to know of a command, read from its definition.</summary>
internal static class CommandShape
{
    /// <summary>The commands below, without the hidden ones.</summary>
    internal static IEnumerable<Command> Visible(Command command) => command.Subcommands.Where(child => !child.Hidden);

    /// <summary>The options of the command itself, without the hidden ones.</summary>
    internal static IEnumerable<Option> Options(Command command) => command.Options.Where(option => !option.Hidden);

    /// <summary>True when the option is always followed by a value.</summary>
    internal static bool TakesValue(Option option) => option.Arity.MinimumNumberOfValues > 0;

    /// <summary><c>-f, --file spec.yaml</c>.</summary>
    internal static string Label(Option option)
    {
        string names = string.Join(", ", Names(option).OrderBy(name => name.Length).ThenBy(name => name, StringComparer.Ordinal));
        string value = option.HelpName ?? option.Name.TrimStart('-').ToUpperInvariant();
        return TakesValue(option) ? $"{names} {value}"
            : option.Arity.MaximumNumberOfValues > 0 && option.ValueType != typeof(bool) ? $"{names} [{value}]"
            : names;
    }

    /// <summary>Every name of an option but <c>-?</c> and <c>/h</c>, which are other systems' ways to ask for help.</summary>
    internal static IEnumerable<string> Names(Option option) =>
        option.Aliases.Append(option.Name).Where(name => name.StartsWith('-') && name is not "-?").Distinct(StringComparer.Ordinal);

    /// <summary><c>NAME [OTHER]</c>, the arguments in their order.</summary>
    internal static string Arguments(Command command) =>
        string.Join(' ', command.Arguments.Where(argument => !argument.Hidden).Select(argument =>
        {
            string name = (argument.HelpName ?? argument.Name).ToUpperInvariant();
            return argument.Arity.MinimumNumberOfValues == 0 ? $"[{name}]" : name;
        }));

    /// <summary>What may stand there: one of some words, the name of an object, a file, or something that cannot be guessed.</summary>
    internal static (CompletionKind Kind, string Words) Values(Symbol symbol, string noun)
    {
        string? help = symbol is Option option ? option.HelpName : (symbol as Argument)?.HelpName;
        string[] words = symbol is Option o
            ? [.. o.GetCompletions(System.CommandLine.Completions.CompletionContext.Empty)
                .Select(item => item.Label)
                .Where(word => !word.StartsWith('-'))]
            : [];
        return help switch
        {
            "path" or "spec.yaml" or "file" or "disk" => (CompletionKind.File, ""),
            "dir" => (CompletionKind.Folder, ""),
            { } either when either.Contains('|', StringComparison.Ordinal) => (CompletionKind.Words, either.Replace('|', ' ')),
            _ when words.Length > 0 => (CompletionKind.Words, string.Join(' ', words)),
            _ when symbol is Argument && noun is "vm" or "disk" or "job" or "token" => (CompletionKind.Objects, noun),
            _ => (CompletionKind.None, ""),
        };
    }
}

/// <summary>What a shell offers at a place of the command line.</summary>
internal enum CompletionKind
{
    /// <summary>Nothing.</summary>
    None,

    /// <summary>A few words.</summary>
    Words,

    /// <summary>Files.</summary>
    File,

    /// <summary>Folders.</summary>
    Folder,

    /// <summary>Names the daemon knows.</summary>
    Objects,
}
