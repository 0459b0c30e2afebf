using System.Diagnostics;
using Vmm.Testing;

namespace Vmm.Kvm.Tests;

[Trait("Tier", "kvm")]
public sealed class KickTests : IDisposable
{
    private readonly KvmSystem _system = KvmSystem.Open();

    public void Dispose() => _system.Dispose();

    [KvmFact]
    public void A_kick_before_the_run_ends_it_at_once()
    {
        using TinyVm tiny = new(_system);
        tiny.StartUser(0xeb, 0xfe); // jmp $
        tiny.Vcpu.Kick();
        Assert.Equal(KvmExit.Interrupted, tiny.Vcpu.Run());
        Assert.False(tiny.Vcpu.ImmediateExit);
    }

    [KvmFact]
    public void No_kick_of_a_spinning_guest_is_lost() => Race([0xeb, 0xfe], 2000); // jmp $

    [KvmFact]
    public void No_kick_of_a_guest_that_also_exits_is_lost() => Race([0xe6, 0x80, 0xeb, 0xfc], 2000); // l: out 0x80,al; jmp l

    /// <summary>
    /// The kicker raises a request number, kicks, and waits for the vCPU thread to have seen it. A lost kick leaves the spinning guest
    /// inside
    /// KVM_RUN for ever: the watchdog then reports it.
    /// </summary>
    private void Race(byte[] guest, int kicks)
    {
        using TinyVm tiny = new(_system);
        tiny.StartUser(guest);
        long requested = 0, seen = 0;
        bool stop = false;
        Exception? failure = null;
        Thread runner = new(() =>
        {
            try
            {
                while (!Volatile.Read(ref stop))
                {
                    KvmExit exit = tiny.Vcpu.Run();
                    Assert.True(exit is KvmExit.Io or KvmExit.Interrupted, $"unexpected exit {exit}");
                    if (exit == KvmExit.Interrupted)
                    {
                        Volatile.Write(ref seen, Volatile.Read(ref requested));
                    }
                }
            }
            catch (Exception e) when (e is not OutOfMemoryException)
            {
                failure = e;
            }
        })
        { IsBackground = true, Name = "kicked vcpu" };
        runner.Start();
        Random random = new(7);
        int lost = -1;
        for (int i = 1; i <= kicks && failure is null; i++)
        {
            Thread.SpinWait(random.Next(200));
            Volatile.Write(ref requested, i);
            tiny.Vcpu.Kick();
            long start = Stopwatch.GetTimestamp();
            while (Volatile.Read(ref seen) < i && failure is null)
            {
                Thread.Yield();
                if (Stopwatch.GetElapsedTime(start) > TimeSpan.FromSeconds(10))
                {
                    lost = i;
                    break;
                }
            }

            if (lost >= 0)
            {
                break;
            }
        }

        Volatile.Write(ref stop, true);
        bool ended;
        int tries = 0;
        do
        {
            tiny.Vcpu.Kick();
            ended = runner.Join(TimeSpan.FromSeconds(1));
        }
        while (!ended && ++tries < 10);
        Assert.Null(failure);
        Assert.Equal(-1, lost);
        Assert.True(ended);
    }
}
