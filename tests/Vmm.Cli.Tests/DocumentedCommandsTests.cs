using Vmm.Cpu;
using System.CommandLine;
using System.Text.RegularExpressions;
using Vmm.Cli.Generate;
using Vmm.Cli.Remote;
using Vmm.Testing;

namespace Vmm.Cli.Tests;

/// <summary>
/// Every command line that a document, an example or a manual page shows is one that vmmctl takes, and every command is in the guide.
/// <c>tests/docs</c> runs them.
/// </summary>
public sealed partial class DocumentedCommandsTests
{
    private static readonly RootCommand s_tree = CommandTree.Create(new Application(() => KvmSurvey.None("nobody asks")));

    public static TheoryData<string> Documents() =>
    [
        "README.md",
        .. Directory.GetFiles(Path.Combine(Tree.Root, "docs"), "*.md")
            .Concat(Directory.GetFiles(Path.Combine(Tree.Root, "deploy"), "*.*", SearchOption.AllDirectories)
                .Where(f => Path.GetExtension(f) is ".md" or ".yaml"))
            .Select(f => Path.GetRelativePath(Tree.Root, f)).Order(StringComparer.Ordinal),
    ];

    [Theory]
    [MemberData(nameof(Documents))]
    public void Every_command_line_of_a_document_is_understood(string file)
    {
        string text = File.ReadAllText(Path.Combine(Tree.Root, file));
        Assert.All(Usages(text).SelectMany(Expand).Concat(Lines(text)), line => Understood(line));
    }

    [Fact]
    public void Every_example_of_a_manual_page_is_understood()
    {
        string folder = Directory.CreateTempSubdirectory("vmmctl-man-").FullName;
        try
        {
            string[] examples = [
                .. ManPages.Write(s_tree, folder).SelectMany(page => Example().Matches(File.ReadAllText(Path.Combine(folder, page))))
                    .SelectMany(block => block.Groups["text"].Value
                        .Replace("\\-", "-", StringComparison.Ordinal)
                        .Replace("\\(dq", "\"", StringComparison.Ordinal)
                        .Split('\n'))
                    .SelectMany(Commands)];
            Assert.True(examples.Length >= 8, string.Join('\n', examples));
            Assert.All(examples, line => Understood(line));
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    [Fact]
    public void Every_command_is_in_the_guide()
    {
        string text = File.ReadAllText(Path.Combine(Tree.Root, "docs", "vmmctl.md"))
            + File.ReadAllText(Path.Combine(Tree.Root, "README.md"));
        HashSet<string> shown = [.. Usages(text).SelectMany(Expand).Concat(Lines(text)).Select(Understood)];
        Assert.DoesNotContain(Leaves(s_tree, ""), path => !shown.Contains(path));
    }

    [Fact]
    public void A_usage_is_every_line_that_it_stands_for()
    {
        Assert.Equal(
            ["vm a", "vm a --x", "vm a --y", "vm b", "vm b --x", "vm b --y"],
            Expand(@"vm a\|b [--x \| --y]").Select(l => l.Replace("vmmctl ", "", StringComparison.Ordinal)));
        Assert.Equal(["vmmctl w", "vmmctl w --wait", "vmmctl w --wait 5"], Expand("vmmctl w [--wait [SECONDS]]"));
        Assert.Throws<Xunit.Sdk.TrueException>(() => Understood("vmmctl vm strat web1"));
        Assert.Throws<Xunit.Sdk.TrueException>(() => Understood("vmmctl vm"));
    }

    /// <summary>The command's path, <c>vm start</c>.</summary>
    private static string Understood(string line)
    {
        string[] words = [.. Word()
            .Matches(line)
            .Select(w => w.Value.Replace("\"", "", StringComparison.Ordinal).Replace("'", "", StringComparison.Ordinal))];
        ParseResult parsed = s_tree.Parse(WaitOption.Separate(words[1..]));
        Command command = parsed.CommandResult.Command;
        Assert.True(parsed.Errors.Count == 0, $"{line}: {string.Join("; ", parsed.Errors.Select(e => e.Message))}");
        Assert.True(command.Subcommands.Count == 0, $"{line}: names no command");
        List<string> path = [];
        for (System.CommandLine.Parsing.SymbolResult? at = parsed.CommandResult; at is not null; at = at.Parent)
        {
            if (at is System.CommandLine.Parsing.CommandResult { Command: not RootCommand } result)
            {
                path.Insert(0, result.Command.Name);
            }
        }

        return string.Join(' ', path);
    }

    private static IEnumerable<string> Leaves(Command command, string path) => CommandShape.Visible(command).SelectMany(child =>
        child.Subcommands.Count == 0 ? [$"{path}{child.Name}"] : Leaves(child, $"{path}{child.Name} "));

    /// <summary>
    /// Spans of code that say how a command is written: those that begin with vmmctl, and those of the tables of commands.
    /// </summary>
    private static IEnumerable<string> Usages(string text)
    {
        bool table = false;
        foreach (string line in text.Split('\n'))
        {
            table = line.StartsWith("| command |", StringComparison.Ordinal) || (table && line.StartsWith('|'));
            foreach (Match span in Span().Matches(table ? Cell().Match(line).Value : line))
            {
                string usage = span.Groups[1].Value;
                if (usage.StartsWith("vmmctl ", StringComparison.Ordinal) ? !Reference().IsMatch(usage) : table && !usage.StartsWith('-'))
                {
                    yield return usage;
                }
            }
        }
    }

    /// <summary>Commands of indented or fenced code, and of comments.</summary>
    private static IEnumerable<string> Lines(string text)
    {
        bool code = false;
        foreach (string line in text.Split('\n'))
        {
            if (line.StartsWith("```", StringComparison.Ordinal))
            {
                code = !code;
            }
            else if ((code && !Pattern().IsMatch(line) && !line.Contains('─', StringComparison.Ordinal)) || line.StartsWith('#'))
            {
                foreach (string command in Commands(line.TrimStart('#')))
                {
                    foreach (string variant in Expand(Spaces().Split(command)[0]))
                    {
                        yield return variant;
                    }
                }
            }
        }
    }

    /// <summary>The commands of a line of shell: without comment, without what is not vmmctl.</summary>
    private static IEnumerable<string> Commands(string line) => ShellEnd()
        .Split(Comment().Replace(line, ""))
        .Select(c => Program().Match(c))
        .Where(m => m.Success)
        .Select(m => "vmmctl " + m.Groups[1].Value.Trim());

    /// <summary>
    /// Every line that a usage stands for: with and without what is in brackets, each of what is between bars, values for the words in
    /// capitals.
    /// </summary>
    private static IEnumerable<string> Expand(string usage)
    {
        string text = usage.Replace("[,…]", "", StringComparison.Ordinal).Replace(@"\|", "|", StringComparison.Ordinal);
        int at = 0;
        return Sequence(
            Token().Matches(text.StartsWith("vmmctl ", StringComparison.Ordinal) ? text : "vmmctl " + text).Select(t => t.Value).ToArray(),
            ref at)
            .Select(l => l.Trim())
            .Distinct();
    }

    private static List<string> Sequence(string[] tokens, ref int at)
    {
        List<string> whole = [], lines = [""];
        for (; at < tokens.Length && tokens[at] is not "]"; at++)
        {
            if (tokens[at] is "|")
            {
                whole.AddRange(lines);
                lines = [""];
                continue;
            }

            List<string> next;
            if (tokens[at] is "[")
            {
                at++;
                next = ["", .. Sequence(tokens, ref at)];
            }
            else
            {
                next = [.. (tokens[at].StartsWith('"') ? [tokens[at]] : tokens[at].Split('|')).Select(Value)];
            }

            lines = [.. lines.SelectMany(line => next.Select(n => n.Length == 0 ? line : $"{line} {n}".Trim()))];
        }

        whole.AddRange(lines);
        return whole;
    }

    private static string Value(string word) => word switch
    {
        "N" or "K" or "ID" or "SECONDS" => word is "K" ? "0" : "5",
        "S" => "1GiB",
        "P" => "150%",
        "SET" => "0-1",
        "LEVEL" => "debug",
        _ => word,
    };

    [GeneratedRegex("`([^`]+)`")]
    private static partial Regex Span();

    [GeneratedRegex(@"^\| .*?(?<!\\)\|")]
    private static partial Regex Cell();

    // Stands for many commands.
    [GeneratedRegex(@"VERB|NOUN|\[options\]")]
    private static partial Regex Pattern();

    // A command or an option that a sentence is about, not how it is written.
    [GeneratedRegex(@"^vmmctl [a-z]+(?: [a-z-]+)?(?: --[a-z]+)?$")]
    private static partial Regex Reference();

    [GeneratedRegex(@"(?<=\s)#.*$")]
    private static partial Regex Comment();

    [GeneratedRegex(@";|&&|&\s*$|\|\s")]
    private static partial Regex ShellEnd();

    [GeneratedRegex(@"^\s*(?:sudo )?(?:[\w./-]*/)?vmmctl (.+)$")]
    private static partial Regex Program();

    [GeneratedRegex(@"""[^""]*""|\[|\]|\||[^\s\[\]""]+")]
    private static partial Regex Token();

    [GeneratedRegex(@"(?:[^\s""']|""[^""]*""|'[^']*')+")]
    private static partial Regex Word();

    [GeneratedRegex(@"\s{2,}")]
    private static partial Regex Spaces();

    [GeneratedRegex(@"\.EX\n(?<text>.*?)\.EE", RegexOptions.Singleline | RegexOptions.ExplicitCapture)]
    private static partial Regex Example();
}
