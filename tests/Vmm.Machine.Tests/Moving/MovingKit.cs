using System.Net.Sockets;
using Vmm.Devices.Virtio;
using Vmm.Interop;
using Vmm.LifeCycle;
using Vmm.Machine.Moving;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Machine.Saved;
using Vmm.Machine.Tests.Run;
using Vmm.Spec;
using Terminal = Vmm.Machine.Tests.Run.Terminal;

namespace Vmm.Machine.Tests.Moving;

/// <summary>A machine with a micro-guest that runs on a thread beside the test.</summary>
internal sealed class MovedGuest : IDisposable
{
    private readonly Thread _thread;
    private readonly Func<RunResult> _result;

    internal MovedGuest(VirtualMachine machine, Terminal terminal)
    {
        (Machine, Terminal) = (machine, terminal);
        _thread = GuestKit.Start(machine, out _result);
        while (machine.State == VmState.Starting)
        {
            Thread.Sleep(1);
        }
    }

    internal VirtualMachine Machine { get; }

    internal Terminal Terminal { get; }

    internal static MovedGuest Start(VmSpec spec, string ready)
    {
        Terminal terminal = new();
        MovedGuest guest = new(VirtualMachine.Create(spec, terminal), terminal);
        terminal.WaitFor(ready);
        return guest;
    }

    /// <summary>Waits for its end.</summary>
    internal RunResult Join()
    {
        Assert.True(_thread.Join(90_000), Terminal.Said);
        return _result();
    }

    public void Dispose()
    {
        Machine.Dispose();
        _thread.Join();
        Terminal.Dispose();
    }
}

/// <summary>Moves between machines of this process.</summary>
internal static class MovingKit
{
    internal static readonly TimeSpan Long = TimeSpan.FromSeconds(60);

    internal static MoveWish Wish { get; } = new(TimeSpan.FromMilliseconds(300));

    /// <summary>Connected streams.</summary>
    internal static (FileDescriptorHandle[] Send, FileDescriptorHandle[] Receive) Channels(int count)
    {
        FileDescriptorHandle[] send = new FileDescriptorHandle[count], receive = new FileDescriptorHandle[count];
        for (int i = 0; i < count; i++)
        {
            (UnixStream own, receive[i]) = UnixStream.CreatePair();
            send[i] = own;
        }

        return (send, receive);
    }

    /// <summary>Moves a guest; what it was is disposed.</summary>
    internal static MovedGuest Move(
        MovedGuest from, List<string> said, int channels = 2, Action<VirtualMachine, VirtualMachine>? look = null, bool passes = false)
    {
        (FileDescriptorHandle[] send, FileDescriptorHandle[] receive) = Channels(channels);
        VmSpec spec = from.Machine.Spec;
        using IncomingMachine incoming = IncomingMachine.Begin(spec, receive, PlainIoThreads.Instance, mayPass: true);
        using (MachineMove move = MachineMove.Begin(from.Machine, send, Wish with { PassMemory = passes }))
        {
            Await(() => move.Progress.Phase == MovePhase.Converged, () => $"{move.Progress}; {incoming.Problem}");
            move.Stop(Long);
            Await(() => incoming.IsComplete, () => incoming.Problem ?? "not complete");
            Terminal terminal = new();
            VirtualMachine machine = incoming.Build(spec, new PathResources(), terminal, prepared: null);
            look?.Invoke(from.Machine, machine);
            said.Add(from.Terminal.Said);
            MovedGuest next = new(machine, terminal);
            move.Dispose();
            from.Dispose();
            return next;
        }
    }

    /// <summary>Both have the same bytes.</summary>
    internal static void SameMemory(VirtualMachine one, VirtualMachine other)
    {
        IReadOnlyList<MemoryPart> ones = MemoryPart.Of(one), others = MemoryPart.Of(other);
        Assert.Equal(ones.Count, others.Count);
        byte[] a = new byte[1 << 20], b = new byte[1 << 20];
        for (int i = 0; i < ones.Count; i++)
        {
            for (ulong at = 0; at < ones[i].Bytes; at += (uint)a.Length)
            {
                ones[i].Memory.CopyTo(at, a);
                others[i].Memory.CopyTo(at, b);
                Assert.True(a.AsSpan().SequenceEqual(b), $"the MiB at {at} of memory {i} is not the same");
            }
        }
    }

    internal static void Await(Func<bool> until, Func<string> what)
    {
        long deadline = Environment.TickCount64 + 60_000;
        while (!until())
        {
            Assert.True(Environment.TickCount64 < deadline, what());
            Thread.Sleep(2);
        }
    }
}

/// <summary>Carries bytes between the ends of a channel, both ways, until so many have gone from the sender; then it cuts.</summary>
internal sealed class CuttingRelay : IDisposable
{
    private readonly Socket _one, _other;
    private readonly Thread _there, _back;

    internal CuttingRelay(FileDescriptorHandle sender, FileDescriptorHandle receiver, long cutAfter)
    {
        _one = new Socket(new SafeSocketHandle(sender.Detach(), ownsHandle: true));
        _other = new Socket(new SafeSocketHandle(receiver.Detach(), ownsHandle: true));
        (_there, _back) = (new Thread(() => Carry(_one, _other, cutAfter)), new Thread(() => Carry(_other, _one, long.MaxValue)));
        _there.Start();
        _back.Start();
    }

    /// <summary>Bytes that went to the receiver.</summary>
    internal long Carried { get; private set; }

    public void Dispose()
    {
        Cut();
        _there.Join();
        _back.Join();
    }

    private void Cut()
    {
        _one.Dispose();
        _other.Dispose();
    }

    private void Carry(Socket from, Socket to, long left)
    {
        byte[] buffer = new byte[64 << 10];
        try
        {
            while (left > 0)
            {
                int count = from.Receive(buffer, 0, (int)Math.Min(buffer.Length, left), SocketFlags.None);
                if (count == 0)
                {
                    break;
                }

                to.Send(buffer.AsSpan(0, count));
                left -= count;
                Carried += ReferenceEquals(from, _one) ? count : 0;
            }
        }
        catch (Exception cause) when (cause is SocketException or ObjectDisposedException)
        {
            // cut from the other side
        }

        Cut();
    }
}
