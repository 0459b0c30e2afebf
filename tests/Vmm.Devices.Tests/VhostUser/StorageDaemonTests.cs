using System.Diagnostics;
using Vmm.Devices.Tests.Virtio;
using Vmm.Devices.VhostUser;
using Vmm.Devices.Virtio.Blk;
using Vmm.Interop;
using Vmm.Memory;

namespace Vmm.Devices.Tests.VhostUser;

/// <summary>A disk of qemu-storage-daemon, without a machine.</summary>
public sealed class StorageDaemonTests
{
    private const int DiskBytes = 1 << 20, Size = QueueGuest.Size;

    private static readonly VhostUserLinkOptions s_quick = new() { Name = "vhost-user-blk0", Of = "/the/socket" };

    /// <summary>For a new table of memory rings are taken back amid requests, which it does not finish by itself.</summary>
    [StorageDaemonFact]
    public async Task Memory_that_comes_and_goes_costs_no_request_of_qemu_storage_daemon()
    {
        string folder = Directory.CreateTempSubdirectory("vmm-qsd-").FullName;
        using Process program = StartStorageDaemon(folder);
        try
        {
            using UnixStream stream = UnixStream.Connect(Path.Combine(folder, "s"), out _)!;
            List<MemoryExtent> memory = [];
            VhostUserLink link = new(new FileDescriptorHandle(stream.Detach()), VhostUserBlk.Needs(1, Size), s_quick);
            VhostUserBlk device = new("vhost-user-blk0", "/the/socket", 1, Size, link, memory);
            using QueueGuest guest = new(device, activate: false);
            using FileDescriptorHandle more = MemoryFile.Create("more", [1]);
            memory.AddRange([guest.Extent, new MemoryExtent(new(1UL << 32), new ByteSize(16UL << 20), more, 0)]);
            guest.Activate(BlkRequests.RingBits | (1UL << 29));
            using CancellationTokenSource over = new();
            Task<int> driver = Task.Run(() => Drive(guest, over.Token));
            MemoryMapOwner map = new(guest.Memory.Ram, new NoSlots());
            nint host = guest.Memory.Regions[0].HostAddress;
            map.AddRamSlot(new GuestRegion(new(1UL << 32), new ByteSize(16UL << 20), host));
            for (int i = 0; i < 40; i++)
            {
                map.AddRam(new GuestRegion(new(1UL << 32), new ByteSize(2UL << 20), host));
                map.RemoveRam(new(1UL << 32), new ByteSize(2UL << 20));
            }

            await over.CancelAsync();
            Assert.True(await driver > 100);
            Assert.Equal(0, device.Losses);
        }
        finally
        {
            program.Kill();
            await program.WaitForExitAsync();
            Directory.Delete(folder, recursive: true);
        }
    }

    /// <summary>Eight reads on their way all the time; how many there were.</summary>
    private static int Drive(QueueGuest guest, CancellationToken over)
    {
        HashSet<uint> onTheirWay = [];
        int done = 0;
        for (int slot = 0; slot < 8; slot++)
        {
            onTheirWay.Add(BlkRequests.Post(guest, 0, slot, type: 0, sector: slot));
        }

        while (onTheirWay.Count > 0)
        {
            (uint head, _) = guest.WaitUsed(0);
            Assert.True(onTheirWay.Remove(head), $"head {head} is completed, and was not on its way");
            Assert.Equal(0, guest.Ram(BlkRequests.At((int)head / 3) + 0x80, 1)[0]);
            done++;
            if (!over.IsCancellationRequested)
            {
                onTheirWay.Add(BlkRequests.Post(guest, 0, (int)head / 3, type: 0, sector: done % 1000));
            }
        }

        return done;
    }

    private static Process StartStorageDaemon(string folder)
    {
        string image = Path.Combine(folder, "disk"), socket = Path.Combine(folder, "s");
        using (FileStream file = File.Create(image))
        {
            file.SetLength(DiskBytes);
        }

        Process program = Process.Start(StorageDaemonFactAttribute.Program,
        [
            "--blockdev", $"driver=file,node-name=file,filename={image}", "--blockdev", "driver=raw,node-name=disk,file=file",
            "--export", $"type=vhost-user-blk,id=export,node-name=disk,writable=on,addr.type=unix,addr.path={socket}",
        ]);
        Assert.True(SpinWait.SpinUntil(() => program.HasExited || File.Exists(socket), 20_000) && !program.HasExited,
            "qemu-storage-daemon does not start");
        return program;
    }

    [AttributeUsage(AttributeTargets.Method)]
    private sealed class StorageDaemonFactAttribute : FactAttribute
    {
        public const string Program = Vmm.Testing.StorageDaemonFactAttribute.Program;

        public StorageDaemonFactAttribute() => Skip = File.Exists(Program) ? null : "qemu-storage-daemon is not installed";
    }
}
