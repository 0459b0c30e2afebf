using System.CommandLine;

namespace Vmm.CommandLine;

/// <summary>
/// <c>vmmctl run</c>: its options and its help. vmmctl shows them and hands the words on, vmm-run carries them out: both read this one
/// definition.
/// </summary>
internal static class RunCommand
{
    /// <summary>The word behind vmmctl.</summary>
    internal const string Name = "run";

    private const string Help = """
        Start one VM in the foreground, with its console on this terminal. Ctrl-A x leaves, Ctrl-A h helps.

        Examples:
          vmmctl run debian.qcow2 --cpus 2 --memory 2GiB
          vmmctl run --kernel vmlinuz --initrd initrd.img --cpus 4 --memory 2GiB
          vmmctl run --kernel vmlinuz --numa 2 --cpus 4 --memory 4GiB --disk root.raw --cmdline "console=ttyS0 root=/dev/vda"
          vmmctl run --kernel vmlinuz --disk data.raw,ro,queues=4,cache=buffered
          vmmctl run --kernel vmlinuz --disk root.raw --net tap=vmtap0,mac=52:54:00:12:34:56
          vmmctl run --kernel vmlinuz --disk root.raw --net user --publish 2222:22
          vmmctl run -f web1.yaml --memory 8GiB

        Exit code: 0 done, 1 failed, 2 bad usage; the guest's own when it writes to the debug-exit port.
        """;

    /// <summary>The command; <paramref name="action"/> gets the values of its options and answers with the exit code.</summary>
    internal static Command Create(Func<RunArguments, int> action)
    {
        RunOptions options = new();
        Command run = new(Name, Help);
        run.Arguments.Add(options.Image);
        foreach (Option option in options.All)
        {
            run.Options.Add(option);
        }

        run.SetAction(parsed => action(options.Read(parsed)));
        return run;
    }
}
