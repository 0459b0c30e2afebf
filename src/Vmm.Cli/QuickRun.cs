namespace Vmm.Cli;

/// <summary>
/// Reads the plain form of <c>vmmctl run</c> without building the command tree, which costs as much time as starting the VM.
/// Whatever is not plain (help, <c>--option=value</c>, an unknown or repeated option, a missing or odd value) is left to the tree,
/// which then also makes the error message.
/// </summary>
internal static class QuickRun
{
    /// <summary>The arguments, or null when the command tree must look at them.</summary>
    internal static RunArguments? TryParse(string[] args)
    {
        if (args.Length == 0 || !string.Equals(args[0], "run", StringComparison.Ordinal))
        {
            return null;
        }

        RunArguments run = new();
        List<string> disks = [], nets = [];
        for (int i = 1; i < args.Length; i++)
        {
            string option = string.Equals(args[i], "-f", StringComparison.Ordinal) ? "--file" : args[i];
            bool repeatable = option is "--disk" or "--net";
            if (!repeatable && IsRepeated(args, i, option))
            {
                return null;
            }

            if (option is "--quiet" or "--no-serial-input")
            {
                run = option is "--quiet" ? run with { Quiet = true } : run with { NoSerialInput = true };
                // The tree would take a word behind a switch as its value.
                if (i + 1 < args.Length && !args[i + 1].StartsWith('-'))
                {
                    return null;
                }

                continue;
            }

            // An empty command line is a plain wish; any other empty value is a mistake that the tree explains.
            if (++i == args.Length || (args[i].Length == 0 && option is not "--cmdline") || args[i].StartsWith('-'))
            {
                return null;
            }

            string value = args[i];
            switch (option)
            {
                case "--file":
                    run = run with { File = value };
                    break;
                case "--name":
                    run = run with { Name = value };
                    break;
                case "--kernel":
                    run = run with { Kernel = value };
                    break;
                case "--initrd":
                    run = run with { Initrd = value };
                    break;
                case "--cmdline":
                    run = run with { Cmdline = value };
                    break;
                case "--memory":
                    run = run with { Memory = value };
                    break;
                case "--virtio-transport":
                    run = run with { Transport = value };
                    break;
                case "--disk":
                    disks.Add(value);
                    break;
                case "--net":
                    nets.Add(value);
                    break;
                case "--cpus" or "--numa":
                    if (!TryNumber(value, out int number))
                    {
                        return null;
                    }

                    run = option is "--cpus" ? run with { Cpus = number } : run with { Numa = number };
                    break;
                default:
                    return null;
            }
        }

        return run with { Disks = disks, Nets = nets };
    }

    /// <summary>Up to nine digits; a longer number is an error that the tree explains.</summary>
    private static bool TryNumber(string text, out int number)
    {
        number = 0;
        foreach (char c in text)
        {
            if (c is < '0' or > '9')
            {
                return false;
            }

            number = (number * 10) + (c - '0');
        }

        return text.Length is > 0 and < 10;
    }

    private static bool IsRepeated(string[] args, int at, string option)
    {
        for (int i = 1; i < at; i++)
        {
            if (string.Equals(args[i], option, StringComparison.Ordinal) || (option is "--file" && args[i] is "-f"))
            {
                return true;
            }
        }

        return false;
    }
}
