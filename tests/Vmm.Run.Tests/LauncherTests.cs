using System.Diagnostics;
using Vmm.Testing;

namespace Vmm.Run.Tests;

/// <summary>The published vmmctl, which becomes vmm-run or vmm-cli.</summary>
public sealed class LauncherTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmmctl-launcher-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Theory]
    [InlineData("run", "nothing to start")]
    [InlineData("run --cpus many", "--cpus many: expected a number")]
    [InlineData("run --output json", "--output: no such option")]
    [InlineData("vms list", "vms: no such command; did you mean vm?")]
    [InlineData("--output json run", "does not go with 'vmmctl run'")]
    public void Each_command_gets_to_the_program_that_knows_it(string words, string message)
    {
        (int code, _, string errors) = Start(Tree.Published("vmmctl", "vmmctl"), words.Split(' '));
        Assert.Equal(2, code);
        Assert.Contains(message, errors, StringComparison.Ordinal);
        Assert.StartsWith("vmmctl: ", errors, StringComparison.Ordinal);
    }

    [Fact]
    public void Both_programs_show_the_same_help_of_run()
    {
        string shown = Start(Tree.Published("vmmctl", "vmmctl"), "run", "--help").Output;
        Assert.Contains("--save-to", shown, StringComparison.Ordinal);
        Assert.Equal(0, Start(Tree.Published("vmmctl", "vmm-cli"), "run", "--help").Code);
        Assert.Equal(Options(shown), Options(Start(Tree.Published("vmmctl", "vmm-cli"), "run", "--help").Output));
    }

    [Fact]
    public void A_link_finds_the_programs_and_a_lonely_copy_says_what_is_missing()
    {
        string link = Path.Combine(_folder, "link");
        File.CreateSymbolicLink(link, Tree.Published("vmmctl", "vmmctl"));
        Assert.Equal(0, Start(link, "version").Code);

        string copy = Path.Combine(_folder, "vmmctl");
        File.Copy(Tree.Published("vmmctl", "vmmctl"), copy);
        foreach ((string word, string program) in new[] { ("run", "vmm-run"), ("vm", "vmm-cli") })
        {
            (int code, _, string errors) = Start(copy, word);
            Assert.Equal(1, code);
            Assert.Contains($"{_folder}/{program} cannot be started: No such file or directory", errors, StringComparison.Ordinal);
        }
    }

    // What is the command's own: vmm-cli adds the options of every command below.
    private static string[] Options(string help) =>
        [.. help.Split('\n')
            .Select(line => line.Trim())
            .Where(line => line.StartsWith('-'))
            .TakeWhile(line => !line.StartsWith("--host", StringComparison.Ordinal))
            .Where(line => !line.StartsWith("-?", StringComparison.Ordinal))];

    private static (int Code, string Output, string Errors) Start(string program, params string[] words)
    {
        ProcessStartInfo start = new(program, words)
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            UseShellExecute = false,
        };
        using Process process = Process.Start(start)!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output, errors.Result);
    }
}
