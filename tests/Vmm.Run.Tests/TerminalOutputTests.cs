using Vmm.CommandLine;
using System.Diagnostics;
using Vmm.Testing;

namespace Vmm.Run.Tests;

/// <summary>What becomes of output that nobody takes, and of the terminal when the program is ended.</summary>
public sealed class TerminalOutputTests
{
    private static readonly string s_guest = Path.Combine(Tree.Root, "tests", "guests", "build", "spin.elf");

    private static string Program => Tree.Published("vmmctl", "vmmctl");

    private static string Guest => $"--kernel {s_guest} --memory 64MiB --cmdline 'ticks=0 every=1000'";

    [Fact]
    public void A_reader_that_is_slow_gets_everything()
    {
        List<byte> got = [];
        using (ConsoleBuffer buffer = new(bytes =>
        {
            Thread.Sleep(1);
            got.AddRange(bytes);
            return true;
        }))
        {
            byte[] piece = new byte[1000];
            for (int i = 0; i < 3000; i++)
            {
                piece.AsSpan().Fill((byte)i);
                buffer.Write(piece);
            }

            Assert.Equal(0, buffer.Dropped);
        }

        Assert.Equal(3000 * 1000, got.Count);
        Assert.All(Enumerable.Range(0, 3000), i => Assert.Equal((byte)i, got[(i * 1000) + 999]));
    }

    [Fact]
    public void A_reader_that_takes_nothing_holds_nobody_up()
    {
        using ManualResetEventSlim never = new();
        using (ConsoleBuffer buffer = new(_ =>
        {
            never.Wait();
            return true;
        }))
        {
            byte[] piece = new byte[100_000];
            for (int i = 0; i < 100; i++)
            {
                buffer.Write(piece); // ten times what fits
            }

            Assert.InRange(buffer.Dropped, 8_000_000, 10_000_000);
            buffer.Hurry();
        }

        never.Set();
    }

    [Fact]
    public void Output_that_can_never_be_written_is_dropped_and_its_end_is_not_waited_for()
    {
        using ConsoleBuffer buffer = new(_ => false);
        for (int i = 0; i < 100; i++)
        {
            buffer.Write(new byte[100_000]);
        }

        Assert.InRange(buffer.Dropped, 1, 10_000_000);
    }

    [KvmFact]
    [Trait("Tier", "kvm")]
    public void A_signal_ends_a_run_whose_output_nobody_takes()
    {
        // The reader holds the pipe open and does not read.
        (int status, string output) = Bash($$"""
            mkfifo "$dir/pipe"; sleep 100 < "$dir/pipe" & reader=$!
            {{Program}} run {{Guest}} < /dev/null > "$dir/pipe" 2> "$dir/errors" & run=$!
            sleep 8; kill -TERM $run
            for i in $(seq 300); do kill -0 $run 2>/dev/null || break; sleep 0.1; done
            if kill -0 $run 2>/dev/null; then echo STUCK; kill -KILL $run; else echo ended; fi
            kill $reader
            """);
        Assert.Equal("ended", output.Trim());
        Assert.Equal(0, status);
    }

    [KvmTheory]
    [InlineData("QUIT")]
    [InlineData("USR1")]
    [InlineData("ALRM")]
    [InlineData("XCPU")]
    [InlineData("TERM")]
    [InlineData("HUP")]
    [Trait("Tier", "kvm")]
    public void Every_signal_that_ends_the_program_leaves_the_terminal_as_it_was(string signal)
    {
        File.WriteAllText(Path.Combine(AppContext.BaseDirectory, $"raw-{signal}.sh"), $$"""
            dir=$1; before=$(stty -g)
            # What runs in the background has no terminal as its input.
            ( for i in $(seq 300); do [ "$(stty -g < /dev/tty)" != "$before" ] && break; sleep 0.1; done
              [ "$(stty -g < /dev/tty)" != "$before" ] && echo was raw > "$dir/raw"; kill -{{signal}} $(cat "$dir/pid") ) &
            sh -c 'echo $$ > '"$dir"'/pid; ulimit -c 0; exec {{Program}} run {{Guest.Replace("'", "\"", StringComparison.Ordinal)}}' > /dev/null 2>&1
            [ "$(stty -g)" = "$before" ] && echo restored > "$dir/after" || echo left raw > "$dir/after"
            """);
        (_, string output) = Bash(
            $"""script -qec "bash {AppContext.BaseDirectory}/raw-{signal}.sh $dir" /dev/null > /dev/null; cat "$dir/raw" "$dir/after" """);
        Assert.Equal("was raw\nrestored", output.Trim());
    }

    [KvmFact]
    [Trait("Tier", "kvm")]
    public void The_virtio_console_of_a_run_has_the_size_of_the_terminal_and_follows_it()
    {
        string guest = Path.Combine(Tree.Root, "tests", "guests", "build", "vcon.elf");
        // SIGWINCH goes to the foreground of the terminal: the shell and the run.
        (_, string output) = Bash($$"""
            cat > "$dir/inside.sh" <<'END'
            stty cols 97 rows 31
            ( for i in $(seq 600); do grep -q 97x31 "$1/said" && break; sleep 0.1; done; stty cols 120 rows 40 < /dev/tty ) &
            exec {{Program}} run --quiet -f "$1/vm.yaml"
            END
            printf 'name: vcon\nmemory: 64MiB\nconsole: virtio\nboot:\n  kernel: {{guest}}\n' > "$dir/vm.yaml"
            mkfifo "$dir/typed"; touch "$dir/said"
            ( wait_for() { for i in $(seq 600); do grep -q "$1" "$dir/said" && return; sleep 0.1; [ -n "$2" ] && printf "$2"; done; }
              wait_for READY; wait_for 97x31 s; wait_for 120x40 s; printf q; sleep 1 ) > "$dir/typed" &
            timeout 120 script -qfec "bash $dir/inside.sh $dir" "$dir/said" < "$dir/typed" > /dev/null; cat "$dir/said"
            """);
        Assert.Contains("97x31", output, StringComparison.Ordinal);
        Assert.Contains("120x40", output, StringComparison.Ordinal);
    }

    [Theory]
    [Trait("Tier", "kvm")] // it is the published program
    [InlineData("2> /dev/full")]
    [InlineData("2> >(true)")]
    [InlineData("2>&-")]
    [InlineData("> /dev/full 2>&-")]
    public void Messages_that_cannot_be_written_are_dropped(string redirection)
    {
        (int status, _) = Bash($"{Program} run --kernel /nonexistent {redirection}");
        Assert.InRange(status, ExitCodes.Failed, ExitCodes.Usage); // not 134: it does not crash
    }

    private static (int Status, string Output) Bash(string script)
    {
        string folder = Directory.CreateTempSubdirectory("vmmctl-").FullName;
        try
        {
            ProcessStartInfo start = new("bash", ["-c", $"dir={folder}\n{script}"])
            {
                RedirectStandardOutput = true,
                RedirectStandardInput = true,
                UseShellExecute = false
            };
            using Process bash = Process.Start(start)!;
            bash.StandardInput.Close();
            string output = bash.StandardOutput.ReadToEnd();
            bash.WaitForExit();
            return (bash.ExitCode, output);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }
}
