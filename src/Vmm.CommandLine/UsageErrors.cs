using System.CommandLine;
using System.CommandLine.Parsing;
using Vmm.Spec;

namespace Vmm.CommandLine;

/// <summary>What is wrong with a command line, one line each: what, what was expected, and where to read on.</summary>
internal static class UsageErrors
{
    private const string NoChoice = "Must be one of";

    internal static IEnumerable<string> Of(ParseResult parsed)
    {
        Command command = parsed.CommandResult.Command;
        string path = PathOf(parsed.CommandResult);
        List<string> lines = [];
        string? unknown = parsed.UnmatchedTokens.Count > 0 ? parsed.UnmatchedTokens[0] : null;
        if (unknown is not null)
        {
            lines.Add(Unknown(command, path, unknown));
        }

        foreach (ParseError error in parsed.Errors)
        {
            // The parser says of every word behind an unknown one that it is unknown, and of the command that it is missing.
            if (unknown is not null && (error.SymbolResult is null || error.SymbolResult is CommandResult))
            {
                continue;
            }

            lines.Add(Wrong(error, command, path));
        }

        lines.Add($"try: vmmctl{(path.Length > 0 ? " " + path : "")} --help");
        return lines.Distinct(StringComparer.Ordinal);
    }

    private static string Unknown(Command command, string path, string word)
    {
        string begin = path.Length > 0 ? path + ": " : "", near;
        if (word.StartsWith('-'))
        {
            near = Near(word, CommandShape.Options(command).SelectMany(CommandShape.Names));
            return $"{begin}{word}: no such option{near}";
        }

        near = Near(word, CommandShape.Visible(command).Select(child => child.Name));
        return command.Subcommands.Count > 0 ? $"{begin}{word}: no such command{near}" : $"{begin}{word}: one word too many";
    }

    private static string Near(string word, IEnumerable<string> known) =>
        Names.Nearest(word, known) is { } near ? $"; did you mean {near}?" : "";

    private static string Wrong(ParseError error, Command command, string path)
    {
        if (error.SymbolResult is CommandResult && command.Subcommands.Count > 0)
        {
            return $"{(path.Length > 0 ? path + ": " : "")}say what to do: "
                + $"{string.Join(", ", CommandShape.Visible(command).Select(child => child.Name))}";
        }

        (string name, string? value, Type type) = error.SymbolResult switch
        {
            OptionResult option => (option.Option.Name, Last(option.Tokens), option.Option.ValueType),
            ArgumentResult { Parent: OptionResult option } => (option.Option.Name, Last(option.Tokens), option.Option.ValueType),
            ArgumentResult argument => (argument.Argument.Name.ToUpperInvariant(), Last(argument.Tokens), argument.Argument.ValueType),
            CommandResult { Command.Arguments: [{ Arity.MinimumNumberOfValues: > 0 } first, ..] } =>
                (first.Name.ToUpperInvariant(), null, first.ValueType),
            _ => ("", null, typeof(string)),
        };
        if (value is not null && error.Message.Contains(NoChoice, StringComparison.Ordinal))
        {
            string[] words = [.. error.Message.Split('\n')
                .Skip(1)
                .Select(line => line.Trim(' ', '\t', '\r', '\''))
                .Where(line => line.Length > 0)];
            return $"{name} {value}: expected {string.Join(", ", words[..^1])} or {words[^1]}";
        }

        if (value is not null && IsNumber(type))
        {
            return $"{name} {value}: expected a number";
        }

        switch (error.SymbolResult)
        {
            case OptionResult { Implicit: false } when value is null:
                return $"{name}: its value is missing";
            case OptionResult or ArgumentResult { Parent: CommandResult } or CommandResult when value is null && name.Length > 0:
                return $"{path}: {name} is missing";
        }

        return string.Join(
            ' ', error.Message.Split((char[])['\n', '\r', '\t'], StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries));
    }

    private static string? Last(IReadOnlyList<Token> tokens) => tokens.Count > 0 ? tokens[^1].Value : null;

    private static bool IsNumber(Type type) =>
        (Nullable.GetUnderlyingType(type) ?? type) is var plain && (plain == typeof(int) || plain == typeof(long));

    /// <summary><c>vm start</c>.</summary>
    private static string PathOf(CommandResult result)
    {
        List<string> path = [];
        for (SymbolResult? at = result; at is not null; at = at.Parent)
        {
            if (at is CommandResult { Command: not RootCommand and var command })
            {
                path.Insert(0, command.Name);
            }
        }

        return string.Join(' ', path);
    }
}
