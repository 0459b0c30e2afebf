using Vmm.Devices.Tests.Virtio.Net;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Balloon;
using Vmm.Devices.Virtio.Blk;
using Vmm.Devices.Virtio.Console;
using Vmm.Devices.Virtio.Net;
using Vmm.Devices.Virtio.Rng;
using Vmm.Interop;
using Vmm.Storage;

namespace Vmm.Devices.Tests.Virtio;

/// <summary>Devices whose threads cannot be started: they fail, can be reset and closed, and work when there are threads again.</summary>
public sealed class ThreadShortageTests
{
    public static TheoryData<string, int> Shortages
    {
        get
        {
            TheoryData<string, int> cases = [];
            foreach ((string device, int threads) in new[]
            {
                ("blk", 3), ("net", 2), ("rng", 1), ("balloon", 1), ("console", 1), ("vhost", 1)
            })
            {
                for (int after = 0; after < threads; after++)
                {
                    cases.Add(device, after);
                }
            }

            return cases;
        }
    }

    [Theory]
    [MemberData(nameof(Shortages))]
    public void A_device_without_a_thread_can_be_reset_closed_and_started_later(string kind, int after)
    {
        VirtioDevice device = Make(kind);
        using QueueGuest guest = new(device, activate: false);
        FewThreads few = new(after);
        VirtioActivation activation = guest.Activation() with { Threads = few };
        device.Threads = few;
        Assert.Throws<InvalidOperationException>(() => device.Activate(activation));
        device.Reset(); // what runs is joined, and what does not run is not
        device.Threads = PlainIoThreads.Instance;
        guest.Activate();
        Assert.Null(guest.NeedsReset);
        device.Reset();
    }

    private static VirtioDevice Make(string kind) => kind switch
    {
        "blk" => new VirtioBlk(new MemoryDiskBackend(1 << 20), new VirtioBlkOptions { QueueCount = 3, IoThreads = 3 }),
        "net" => new VirtioNet(new MemoryNet(2), new VirtioNetOptions { Mac = new byte[] { 0x52, 0x54, 0, 1, 2, 3 } }),
        "vhost" => new VirtioNet(
            new MemoryNet { Kernel = [new IdleKernel()] }, new VirtioNetOptions { Mac = new byte[] { 0x52, 0x54, 0, 1, 2, 3 } }),
        "rng" => new VirtioRng(),
        "balloon" => new VirtioBalloon(),
        "console" => new VirtioConsole(new NoSink()),
        _ => throw new ArgumentOutOfRangeException(nameof(kind)),
    };

    private sealed class FewThreads(int most) : IIoThreads
    {
        private int _left = most;

        public void Start(Thread thread)
        {
            if (_left-- <= 0)
            {
                throw new InvalidOperationException("no more threads");
            }

            thread.Start();
        }

        public void Ready() { }
    }

    private sealed class IdleKernel : IKernelPair
    {
        public ulong Features => ulong.MaxValue;

        public void SetFeatures(ulong features) { }

        public void SetMemory(ReadOnlySpan<VhostRegion> regions) { }

        public void SetRing(int index, in VhostRing ring) { }

        public void Serve(int index) { }

        public ushort Stop(int index) => 0;
    }

    private sealed class NoSink : IConsoleSink
    {
        public void Write(ReadOnlySpan<byte> bytes) { }
    }
}
