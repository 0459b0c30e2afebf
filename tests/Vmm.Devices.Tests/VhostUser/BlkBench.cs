using Vmm.Devices.Tests.Virtio;
using Vmm.Devices.VhostUser;
using Vmm.Devices.Virtio.Blk;
using Vmm.Interop;
using Vmm.Memory;

namespace Vmm.Devices.Tests.VhostUser;

/// <summary>A device, its guest, and back ends over one disk, as many as are needed.</summary>
internal sealed class BlkBench : IDisposable
{
    private readonly List<BlkBackEnd> _ends = [];
    private readonly BackEndDisk _disk;
    private readonly int _queues;
    private readonly bool _withoutRecord;
    private readonly Action<BlkBackEnd>? _prepare;
    private volatile int _keeps;

    public BlkBench(
        VhostUserLinkOptions options, BackEndDisk disk, int queues = 1, bool withoutRecord = false, Action<BlkBackEnd>? prepare = null)
    {
        (_disk, _queues, _withoutRecord, _prepare) = (disk, queues, withoutRecord, prepare);
        VhostUserLink link = new(Next(), VhostUserBlk.Needs(queues, QueueGuest.Size), options with
        {
            Note = note =>
            {
                lock (Notes)
                {
                    Notes.Add(note);
                }
            },
            Connect = _ => Task.FromResult(Next()),
        });
        List<MemoryExtent> memory = [];
        Device = new VhostUserBlk("vhost-user-blk0", "/the/socket", queues, QueueGuest.Size, link, memory);
        Guest = new QueueGuest(Device, activate: false);
        memory.Add(Guest.Extent);
        Guest.Activate(BlkRequests.RingBits);
    }

    public VhostUserBlk Device { get; }

    public QueueGuest Guest { get; }

    private List<string> Notes { get; } = [];

    public bool IsNoted(string text)
    {
        lock (Notes)
        {
            return Notes.Exists(note => note.Contains(text, StringComparison.Ordinal));
        }
    }

    public BlkBackEnd End
    {
        get
        {
            lock (_ends)
            {
                return _ends[^1];
            }
        }
    }

    public Exception? Failure
    {
        get
        {
            lock (_ends)
            {
                return _ends.Select(end => end.Failure).FirstOrDefault(failure => failure is not null);
            }
        }
    }

    public Span<byte> Data(int slot) => Guest.Ram(BlkRequests.At(slot) + 0x100, 512);

    public byte Status(int slot) => Guest.Ram(BlkRequests.At(slot) + 0x80, 1)[0];

    public ushort Write(int queue, int slot, int sector, byte fill)
    {
        Data(slot).Fill(fill);
        return BlkRequests.Post(Guest, queue, slot, type: 1, sector);
    }

    public void Read(int queue, int slot, int sector) => BlkRequests.Post(Guest, queue, slot, type: 0, sector);

    public int WaitStatus(int queue, int slot)
    {
        Guest.WaitUsed(queue);
        return Status(slot);
    }

    public void Keeps(int chains)
    {
        _keeps = chains;
        End.KeepsBack = chains;
    }

    public void Kill() => End.Dispose();

    public void Dispose()
    {
        Guest.Dispose();
        _ends.ForEach(end => end.Dispose());
    }

    private FileDescriptorHandle Next()
    {
        (UnixStream own, FileDescriptorHandle theirs) = UnixStream.CreatePair();
        lock (_ends)
        {
            BlkBackEnd end = new(theirs, _disk, _queues, _ends.Count + 1) { WithoutRecord = _withoutRecord };
            _prepare?.Invoke(end);
            end.KeepsBack = Math.Max(end.KeepsBack, _keeps);
            _ends.Add(end);
            end.Start();
        }

        return new FileDescriptorHandle(own.Detach());
    }
}
