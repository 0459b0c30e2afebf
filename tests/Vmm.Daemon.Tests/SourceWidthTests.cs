using System.Globalization;
using System.Text.RegularExpressions;
using Vmm.Testing;
using Xunit;

namespace Vmm.Daemon.Tests;

/// <summary>The width of lines that .editorconfig asks for, which no formatter checks.</summary>
public sealed partial class SourceWidthTests
{
    [Fact]
    public void No_line_is_wider_than_the_editorconfig_says()
    {
        int most = int.Parse(
            Width().Match(File.ReadAllText(Path.Combine(Tree.Root, ".editorconfig"))).Value, CultureInfo.InvariantCulture);
        int files = 0;
        List<string> wide = [];
        foreach (string folder in new[] { "src", "tests", "perf" })
        {
            foreach (string file in Directory.EnumerateFiles(Path.Combine(Tree.Root, folder), "*.cs", SearchOption.AllDirectories))
            {
                string name = Path.GetRelativePath(Tree.Root, file);
                if (!name.Split('/').Any(part => part is "obj" or "bin"))
                {
                    files++;
                    wide.AddRange(Wide(File.ReadAllLines(file), most).Select(line => $"{name}:{line}"));
                }
            }
        }

        Assert.True(files > 500, $"only {files} source files were found");
        Assert.True(wide.Count == 0, $"lines of more than {most} columns:\n{string.Join('\n', wide)}");
    }

    [Fact]
    public void Only_raw_and_verbatim_literals_may_be_wide()
    {
        string wide = new('x', 20);
        string[] lines =
        [
            wide, "short", "a = \"\"\"", wide, "  \"\"\";", wide, "b = @\"" + wide + "\";", "c = \"\"\"" + wide + "\"\"\";", wide
        ];
        Assert.Equal([1, 6, 9], Wide(lines, 10));
    }

    // What is in such a literal is content, and cannot be broken.
    private static IEnumerable<int> Wide(string[] lines, int most)
    {
        bool raw = false;
        for (int i = 0; i < lines.Length; i++)
        {
            int quotes = lines[i].Split("\"\"\"").Length - 1;
            if (!raw && quotes == 0 && lines[i].Length > most && !lines[i].Contains("@\"", StringComparison.Ordinal))
            {
                yield return i + 1;
            }

            raw ^= quotes % 2 == 1;
        }
    }

    [GeneratedRegex(@"(?<=^max_line_length = )\d+$", RegexOptions.Multiline)]
    private static partial Regex Width();
}
