using Vmm.CommandLine;
using System.Text;
using Vmm.LifeCycle;
using Vmm.Machine.Run;
using Vmm.Memory;
using Vmm.Spec;
using Vmm.Testing;

namespace Vmm.Run.Tests;

/// <summary><c>vmmctl run --save-to</c> and <c>--restore</c>, with a real machine.</summary>
[Collection("environment")]
[Trait("Tier", "kvm")]
public sealed class SaveRunTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmmctl-save-").FullName;
    private readonly StringWriter _out = new(), _error = new();

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private string Saved => Path.Combine(_folder, "saved");

    [KvmFact]
    public void Told_to_stop_it_saves_the_VM_and_a_later_run_goes_on_with_it()
    {
        string kernel = Path.Combine(Tree.Root, "tests", "guests", "build", "spin.elf");
        VmSpec spec = new() { Memory = ByteSize.MiB(64), Boot = new BootSpec { Kernel = kernel, Cmdline = "every=20000000 ticks=8" } };
        using CancellationTokenSource stop = new();
        Recorder first = new(said => said.Contains("TICK spin 3\n", StringComparison.Ordinal), stop.Cancel);
        RunResult saved = ForegroundMachine.Run(new RunRequest(spec, SaveTo: Saved), first, null, stop.Token);
        Assert.Equal((ExitReason.Stopped, 0), (saved.Reason, saved.ExitCode));
        Assert.Contains("--restore", saved.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("RESULT", first.Said, StringComparison.Ordinal);

        foreach (bool lazily in PagerFactAttribute.WhyNot is null ? (bool[])[true, false] : [false])
        {
            RunRequest? request = RunRequest.From(new RunArguments { Restore = Saved, Lazy = lazily }, []);
            Recorder second = new(_ => false, () => { });
            RunResult result = ForegroundMachine.Run(request!, second, null, CancellationToken.None);
            Assert.Equal((ExitReason.DebugExit, 0), (result.Reason, result.ExitCode));
            string all = first.Said + second.Said;
            for (int tick = 1; tick <= 8; tick++)
            {
                Assert.Equal(2, all.Split($"TICK spin {tick}\n").Length); // once
            }
        }
    }

    [Fact]
    public void Folders_that_are_taken_or_no_saved_VM_and_options_that_do_not_go_together_are_bad_usage()
    {
        Directory.CreateDirectory(Saved);
        Assert.Equal(2, Execute("run", "--restore", Saved));
        Assert.Equal(2, Execute("run", "--restore", Saved, "--memory", "1GiB"));
        Assert.Equal(2, Execute("run", "--kernel", "/dev/null", "--save-to", Saved));
        Assert.Equal(2, Execute("run", "--kernel", "/dev/null", "--lazy"));
        string errors = _error.ToString();
        Assert.Contains("is no saved VM", errors, StringComparison.Ordinal);
        Assert.Contains("--restore goes with --lazy, --save-to", errors, StringComparison.Ordinal);
        Assert.Contains("--lazy: it goes with --restore only", errors, StringComparison.Ordinal);
        Assert.Contains("it exists already", errors, StringComparison.Ordinal);
    }

    private int Execute(params string[] args) =>
        new RunApplication((_, _, _, _) => throw new InvalidOperationException("nothing is run here"), _out, _error).Execute(args);

    /// <summary>A console without a user; tells when the guest has said something.</summary>
    private sealed class Recorder(Func<string, bool> awaited, Action then) : IConsoleEndpoint
    {
        private readonly object _gate = new();
        private readonly StringBuilder _said = new();
        private bool _over, _told, _interrupted;

        internal string Said
        {
            get
            {
                lock (_gate)
                {
                    return _said.ToString();
                }
            }
        }

        public void Write(ReadOnlySpan<byte> output)
        {
            bool now;
            lock (_gate)
            {
                _said.Append(Encoding.ASCII.GetString(output).Replace("\r", "", StringComparison.Ordinal));
                now = !_told && awaited(_said.ToString());
                _told |= now;
            }

            if (now)
            {
                then();
            }
        }

        public int Read(Span<byte> input)
        {
            lock (_gate)
            {
                while (!_over && !_interrupted)
                {
                    Monitor.Wait(_gate);
                }

                _interrupted = false;
                return _over ? 0 : -1;
            }
        }

        public void InterruptRead()
        {
            lock (_gate)
            {
                _interrupted = true;
                Monitor.PulseAll(_gate);
            }
        }

        public void StopReading()
        {
            lock (_gate)
            {
                _over = true;
                Monitor.PulseAll(_gate);
            }
        }

        public void OnResize(Action<ushort, ushort> resized)
        {
            // Nobody changes its size.
        }
    }
}
