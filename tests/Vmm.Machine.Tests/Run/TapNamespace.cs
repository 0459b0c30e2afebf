using System.Collections.Concurrent;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;

namespace Vmm.Machine.Tests.Run;

/// <summary>
/// A network namespace of one thread, with a tap in it: what runs on that thread opens taps and sockets there, programs it starts live
/// there.
/// It has no name, so nothing is left behind however a test ends. 192.0.2.0/24 is for documentation (RFC 5737).
/// </summary>
internal sealed class TapNamespace : IDisposable
{
    private const int NewNetwork = 0x40000000;
    private readonly BlockingCollection<Action> _work = [];
    private readonly Thread _thread;

    public TapNamespace(bool multiQueue = false)
    {
        _thread = new Thread(() =>
        {
            foreach (Action action in _work.GetConsumingEnumerable())
            {
                action();
            }
        });
        _thread.Start();
        Do(() =>
        {
            Assert.True(Unshare(NewNetwork) == 0, $"unshare: errno {Marshal.GetLastPInvokeError()}");
            Ip("tuntap", "add", "dev", "vmtap0", "mode", "tap", multiQueue ? "multi_queue" : "");
            Ip("addr", "add", "192.0.2.1/24", "dev", "vmtap0");
            Ip("link", "set", "vmtap0", "up");
            return 0;
        });
    }

    public T Do<T>(Func<T> action)
    {
        TaskCompletionSource<T> done = new(TaskCreationOptions.RunContinuationsAsynchronously);
        _work.Add(() =>
        {
            try
            {
                done.SetResult(action());
            }
#pragma warning disable CA1031 // Handed to the caller.
            catch (Exception cause)
#pragma warning restore CA1031
            {
                done.SetException(cause);
            }
        });
        return done.Task.GetAwaiter().GetResult();
    }

    public Socket Udp() =>
        Do(() => new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp)
        {
            ReceiveTimeout = 20_000,
            SendTimeout = 20_000,
            ReceiveBufferSize = 1 << 20
        });

    public Socket Icmp() => Do(() => new Socket(AddressFamily.InterNetwork, SocketType.Raw, ProtocolType.Icmp) { ReceiveTimeout = 20_000 });

    public static EndPoint Guest(int port) => new IPEndPoint(IPAddress.Parse("192.0.2.2"), port);

    public void Dispose()
    {
        _work.CompleteAdding();
        _thread.Join();
        _work.Dispose();
    }

    internal static void Ip(params string[] words)
    {
        using Process ip = Process.Start(
            new ProcessStartInfo("ip", words.Where(w => w.Length > 0)) { RedirectStandardError = true, UseShellExecute = false })!;
        string errors = ip.StandardError.ReadToEnd();
        ip.WaitForExit();
        Assert.True(ip.ExitCode == 0, $"ip {string.Join(' ', words)}: {errors}");
    }

#pragma warning disable SYSLIB1054, CA5392 // One function of libc, in a test.
    [DllImport("libc", EntryPoint = "unshare", SetLastError = true)]
    private static extern int Unshare(int flags);
#pragma warning restore SYSLIB1054, CA5392
}
