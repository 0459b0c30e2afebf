using Vmm.Cpu;
using System.CommandLine;
using System.Diagnostics;
using FsCheck;
using FsCheck.Fluent;
using Vmm.Cli.Generate;

namespace Vmm.Cli.Tests;

[Collection("environment")]
public sealed class GenerateTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmmctl-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private static RootCommand Tree() => CommandTree.Create(new Application(() => KvmSurvey.None("nobody asks")));

    private static (int Code, string Output) Run(string program, params string[] arguments)
    {
        ProcessStartInfo info =
            new(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true, UseShellExecute = false };
        using Process process = Process.Start(info)!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output + errors.Result);
    }

    [Fact]
    public void Every_command_and_option_is_in_the_manual()
    {
        RootCommand root = Tree();
        IReadOnlyList<string> files = ManPages.Write(root, _folder);
        foreach (Command noun in CommandShape.Visible(root))
        {
            Assert.Contains($"vmmctl-{noun.Name}.1", files);
            string page = File.ReadAllText(Path.Combine(_folder, $"vmmctl-{noun.Name}.1"));
            foreach (Command verb in CommandShape.Visible(noun))
            {
                Assert.Contains(RoffPage.Escape($"vmmctl {noun.Name} {verb.Name}"), page, StringComparison.Ordinal);
                Assert.All(CommandShape.Options(verb),
                    option => Assert.Contains(RoffPage.Escape(CommandShape.Label(option)), page, StringComparison.Ordinal));
            }
        }

        string spec = File.ReadAllText(Path.Combine(_folder, "vmm-spec.5"));
        Assert.All(new[] { "boot.kernel", "numa.vnodes[].hostNodes", "disks[].path", "vsock.cid", "devices[].kind", "devices[].path" },
            field => Assert.Contains(field, spec, StringComparison.Ordinal));
    }

    [Fact]
    public void Groff_renders_every_page_without_a_warning()
    {
        foreach (string file in ManPages.Write(Tree(), _folder))
        {
            (int code, string output) = Run("/bin/sh", "-c", "command -v groff >/dev/null || exit 0; groff -man -ww -z -Tutf8 \"$1\"", "sh",
                Path.Combine(_folder, file));
            Assert.True(code == 0 && output.Length == 0, $"{file}: {output}");
        }
    }

    [Fact]
    public void Text_never_becomes_a_request_of_the_formatter() => Prop.ForAll<string>(text =>
    {
        string page = new RoffPage("x", 1, DateTimeOffset.UnixEpoch).Section("s").Text(text ?? "").ToString();
        string[] known = [".TH", ".ad l", ".SH", ".SS", ".TP", ".PP", ".EX", ".EE", ".B ", ".BR", ".\\\""];
        return page.Split('\n').All(line => line.Length == 0 || line[0] is not ('.' or '\'')
            || known.Any(macro => line.StartsWith(macro, StringComparison.Ordinal)))
            && !RoffPage.Escape((text ?? "") + "\\").EndsWith("\\\\", StringComparison.Ordinal);
    }).QuickCheckThrowOnFailure();

    [Theory]
    [InlineData("vmmctl vm st", "start stop stats stream")]
    [InlineData("vmmctl tok", "token")]
    [InlineData("vmmctl backup ", "create list verify restore prune")]
    [InlineData("vmmctl image ", "list show import export delete")]
    [InlineData("vmmctl network ", "list show create set delete")]
    [InlineData("vmmctl network create default --iso", "--isolated")]
    [InlineData("vmmctl vm stop --gr", "--graceful")]
    [InlineData("vmmctl -o j", "json")]
    [InlineData("vmmctl --host unix:///nonexistent vm pau", "pause")]
    [InlineData("vmmctl vm create -f FOLDER/spe", "FOLDER/spec.yaml")]
    [InlineData("vmmctl run --kernel FOLDER/vml", "FOLDER/vmlinuz")]
    [InlineData("vmmctl run --ho", "--hostname")]
    [InlineData("vmmctl ssh web1 --us", "--user")]
    [InlineData("vmmctl vm seed web1 --rem", "--remove")]
    [InlineData("vmmctl vm start w", "web1 web2")]
    [InlineData("vmmctl vm start web1 w", "")]
    [InlineData("vmmctl vm stop --wait w", "web1 web2")]
    [InlineData("vmmctl vm upgrade w", "web1 web2")]
    [InlineData("vmmctl vm migrate w", "web1 web2")]
    [InlineData("vmmctl vm migrate web1 --max", "--max-downtime")]
    [InlineData("vmmctl vm upgrade --max", "--max-downtime")]
    [InlineData("vmmctl vm upgrade --on-timeout ", "cancel force")]
    [InlineData("vmmctl token create ci --role ", "viewer operator admin")]
    public void Bash_offers(string line, string expected)
    {
        File.WriteAllText(Path.Combine(_folder, "spec.yaml"), "");
        File.WriteAllText(Path.Combine(_folder, "vmlinuz"), "");
        // In the place of vmmctl: says which VMs there are when it is asked for them.
        string program = Path.Combine(_folder, "vmmctl");
        File.WriteAllText(
            program, "#!/bin/sh\nwhile [ $# -gt 2 ]; do shift; done\n[ \"$*\" = 'complete vm' ] && printf 'web1\\nweb2\\nother\\n'\n");
        File.SetUnixFileMode(program, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        string script = Path.Combine(_folder, "completion");
        File.WriteAllText(script, BashCompletion.Write(Tree()));
        string words = line.Replace("FOLDER", _folder, StringComparison.Ordinal)
            .Replace("vmmctl ", program + " ", StringComparison.Ordinal);

        // As readline does it: words, split at blanks and colons too.
        (int code, string output) = Run("bash", "-euc", """
            source "$1"
            COMP_WORDS=() word=
            for part in $(sed 's/:/ : /g' <<<"$2"); do COMP_WORDS+=("$part"); done
            case $2 in *" ") COMP_WORDS+=("") ;; esac
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            _vmmctl
            echo "${COMPREPLY[*]}"
            """, "bash", script, words);
        Assert.Equal(
            (0, expected.Replace("FOLDER", _folder, StringComparison.Ordinal)),
            (code, string.Join(' ', output.Split((char[])[' ', '\n'], StringSplitOptions.RemoveEmptyEntries))));
    }
}
