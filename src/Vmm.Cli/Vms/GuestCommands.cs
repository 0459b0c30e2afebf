using System.CommandLine;
using System.Text;
using Vmm.Cli.Remote;
using Vmm.Contracts;
using Vmm.Contracts.Rest;
using static Vmm.Cli.Remote.DaemonSession;

namespace Vmm.Cli.Vms;

/// <summary>Verbs that ask the standard agent of a guest.</summary>
internal static class GuestCommands
{
    private const int SignalBase = 128; // as shells say it

    internal static void AddTo(Noun vm)
    {
        vm.Add("guest", "What the guest is, by qemu-guest-agent in it: addresses, host name, system, file systems", VmCommands.Name(),
            ShowAsync);
        Argument<string> name = VmCommands.Name();
        Argument<string[]> command = new("command")
        {
            Description = "Program and arguments, best after --; no shell is involved",
            Arity = ArgumentArity.OneOrMore,
        };
        Option<int?> wait = new("--wait") { Description = "Seconds to wait for its end, 60 by default", HelpName = "seconds" };
        vm.Add("exec", "Carry out a command in the guest, by qemu-guest-agent in it; ends with its exit code", [name, command, wait],
            (session, parsed, cancellation) => ExecAsync(
                session, parsed.GetValue(name)!, new GuestExecWish(parsed.GetValue(command)!, Seconds: parsed.GetValue(wait)),
                cancellation));
    }

    private static async Task<int> ShowAsync(DaemonSession session, string name, CancellationToken cancellation)
    {
        GuestFacts guest = await session.Client.GuestAsync(name, cancellation).ConfigureAwait(false);
        if (session.IsJson)
        {
            return session.Json(guest, RestJson.Default.GuestFacts);
        }

        session.Properties(
            ("host name", guest.HostName ?? "-"), ("system", guest.System?.Name ?? "-"),
            ("kernel", guest.System is { } system ? $"{system.Kernel} {system.Machine}" : "-"), ("agent", guest.Agent ?? "-"));
        Table interfaces = new("INTERFACE", "MAC", "ADDRESSES");
        foreach (GuestInterface each in guest.Interfaces)
        {
            interfaces.Add(each.Name, each.Mac ?? "-", string.Join(' ', each.Addresses));
        }

        Table mounts = new("MOUNTED ON", "TYPE", "DEVICE", "SIZE", "USED");
        foreach (GuestFileSystem each in guest.FileSystems)
        {
            mounts.Add(
                each.MountPoint, each.Type ?? "-", each.Device ?? "-", each.Size is { } size ? Size(size) : "-",
                each.Used is { } used ? Size(used) : "-");
        }

        session.Table(interfaces);
        return session.Table(mounts);
    }

    private static async Task<int> ExecAsync(DaemonSession session, string name, GuestExecWish wish, CancellationToken cancellation)
    {
        GuestExecResult result = await session.Client.ExecAsync(name, wish, cancellation).ConfigureAwait(false);
        if (session.IsJson)
        {
            session.Json(result, RestJson.Default.GuestExecResult);
        }
        else
        {
            Write(session.Out, result.Output, Console.Out, Console.IsOutputRedirected, Console.OpenStandardOutput);
            Write(session.Errors, result.Errors, Console.Error, Console.IsErrorRedirected, Console.OpenStandardError);
            if (result.Truncated)
            {
                session.Fail("the guest's agent kept only the begin of what the command wrote");
            }
        }

        return result.Signal is { } signal ? Low(SignalBase + signal) : Low(result.ExitCode ?? 0);
    }

    // A terminal gets text that cannot steer it; a file or a pipe gets the bytes.
    private static void Write(TextWriter to, byte[] bytes, TextWriter console, bool isRedirected, Func<Stream> open)
    {
        if (isRedirected && ReferenceEquals(to, console))
        {
            using Stream raw = open();
            raw.Write(bytes);
        }
        else
        {
            to.Write(SafeText.Lines(Encoding.UTF8.GetString(bytes)));
        }
    }

    // Some systems have codes that a process here cannot end with.
    private static int Low(int code) => code == 0 ? 0 : (code & 0xFF) is 0 ? 1 : code & 0xFF;
}
