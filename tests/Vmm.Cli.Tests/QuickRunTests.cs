using Vmm.Machine.Run;
using Vmm.Machine.Spec;

namespace Vmm.Cli.Tests;

public sealed class QuickRunTests
{
    [Fact]
    public void Plain_options_are_read()
    {
        RunArguments? run = QuickRun.TryParse(["run", "--kernel", "k", "--cpus", "4", "--numa", "2", "--disk", "a,ro", "--disk", "b", "--memory", "1GiB", "--cmdline", "x y=z", "--quiet"]);
        Assert.NotNull(run);
        Assert.Equal(("k", 4, 2, "1GiB", "x y=z", true, false), (run.Kernel, run.Cpus!.Value, run.Numa!.Value, run.Memory, run.Cmdline, run.Quiet, run.NoSerialInput));
        Assert.Equal(["a,ro", "b"], run.Disks);
    }

    [Theory]
    [InlineData("version")]
    [InlineData("run", "--help")]
    [InlineData("run", "--kernel")]
    [InlineData("run", "--kernel=k")]
    [InlineData("run", "--kernel", "k", "--kernel", "l")]
    [InlineData("run", "--kernel", "-x")]
    [InlineData("run", "--cpus", "four")]
    [InlineData("run", "--cpus", "-1")]
    [InlineData("run", "--kernel", "")]
    [InlineData("run", "--quiet", "false")]
    [InlineData("run", "stray")]
    [InlineData("run", "--no-such-option", "1")]
    public void Everything_else_is_left_to_the_command_tree(params string[] args) => Assert.Null(QuickRun.TryParse(args));

    [Fact]
    public void Both_ways_give_the_same_spec_for_random_options()
    {
        string kernel = Path.GetTempFileName();
        try
        {
            Random random = new(9);
            for (int round = 0; round < 50; round++)
            {
                List<string> args = ["run", "--kernel", kernel];
                void Maybe(params string[] words)
                {
                    if (random.Next(2) == 0)
                    {
                        args.AddRange(words);
                    }
                }

                Maybe("--cpus", $"{random.Next(1, 5)}");
                Maybe("--memory", $"{random.Next(64, 512)}MiB");
                Maybe("--name", $"vm{round}");
                Maybe("--cmdline", $"a=b c={round}");
                Maybe("--no-serial-input");
                Maybe("--quiet");
                Maybe("--virtio-transport", "mmio");
                Assert.NotNull(QuickRun.TryParse([.. args]));

                // An option given as --name=value goes through the tree; both must hand the same spec to the machine.
                string[] tree = ["run", $"--kernel={kernel}", .. args.Skip(3)];
                Assert.Null(QuickRun.TryParse(tree));
                Assert.Equal(SpecOf([.. args]).ToString(), SpecOf(tree).ToString());
            }
        }
        finally
        {
            File.Delete(kernel);
        }
    }

    private static VmSpec SpecOf(string[] args)
    {
        VmSpec? got = null;
        int code = new Application((spec, _, _, _) =>
        {
            got = spec;
            return new RunResult(RunOutcome.PowerOff);
        }, TextWriter.Null, TextWriter.Null).Execute(args);
        Assert.Equal(0, code);
        return got!;
    }
}
