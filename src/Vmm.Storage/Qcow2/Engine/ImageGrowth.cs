using Vmm.Io;

namespace Vmm.Storage.Qcow2;

/// <summary>
/// Makes the disk of the top image larger while it is used. Until the header's size is written, last, the image is one of the old size with
/// entries behind its end, which mean nothing. Blocks; one at a time.
/// </summary>
internal sealed class ImageGrowth(Qcow2Disk disk, MetadataThread metadata)
{
    private const uint MostZeroed = 1 << 30;

    private readonly ImageState _state = disk.State;

    /// <summary>Durable when this returns.</summary>
    /// <exception cref="BlockException">It cannot have that size, or the host failed: it has its old one.</exception>
    internal void Run(ulong bytes)
    {
        ulong before = disk.Geometry.CapacityBytes;
        Check(before, bytes);
        uint entries = (uint)_state.Chain.Layers[0].Tables!.Geometry.L1EntriesFor(bytes);
        metadata.Do(() => metadata.GrowTable(entries));
        SetEnd(bytes);
        try
        {
            ZeroNewPart(before, bytes);
            metadata.Do(() => metadata.SetDiskSize(before, bytes));
        }
        catch
        {
            SetEnd(before);
            throw;
        }
    }

    private void Check(ulong before, ulong bytes)
    {
        ChainLayer top = _state.Chain.Layers[0];
        Qcow2Geometry image = top.Tables!.Geometry;
        string? problem = bytes % 512 != 0 || bytes > long.MaxValue ? $"{bytes} bytes are no size of a disk: whole sectors of 512 bytes"
            : bytes < before ? $"it has {before} bytes and does not shrink to {bytes}"
            : image.L1EntriesFor(bytes) * 8 > Qcow2Header.MaxL1Bytes
                ? $"{bytes} bytes are too much for clusters of {image.ClusterSize} bytes"
            : top.Header!.Version < 3 && _state.Chain.Layers is [_, { } below, ..] && below.DiskSize > before
                ? "the image below it is longer, and an image of version 2 cannot hide that; convert it"
            : null;
        if (problem is not null)
        {
            throw new BlockException(BlockErrorKind.BadSize, $"disk {disk.Path} is not made larger: {problem}") { Path = disk.Path };
        }
    }

    // Where the disk ends for the tables; requests of guests end at the size that was announced.
    private void SetEnd(ulong bytes)
    {
        lock (_state)
        {
            _state.Chain.ReplaceTop(top => top with { DiskSize = bytes });
        }
    }

    // The rest of the last cluster, a longer image below and entries that somebody left must not be seen. Mostly nothing is there.
    private void ZeroNewPart(ulong from, ulong to)
    {
        using IoLoop loop = new();
        using Ends ends = new(loop, disk.Path);
        using Qcow2Node node = disk.CreateHiddenNode(loop, to);
        for (ulong at = from; at < to; at += Math.Min(to - at, MostZeroed))
        {
            ends.Run(node, at, (uint)Math.Min(to - at, MostZeroed));
        }

        node.FlushAndClose(loop);
    }

    private sealed class Ends : IBlockOwner, IDisposable
    {
        private readonly IoLoop _loop;
        private readonly string _path;
        private readonly BlockRequest _request;
        private TaskCompletionSource<DiskStatus> _over = new();

        internal Ends(IoLoop loop, string path)
        {
            (_loop, _path) = (loop, path);
            _request = new BlockRequest(this);
            loop.Add(_request);
        }

        public void Completed(BlockRequest request, DiskStatus status) => _over.SetResult(status);

        internal void Run(Qcow2Node node, ulong offset, uint length)
        {
            _over = new TaskCompletionSource<DiskStatus>();
            _request.Prepare(BlockKind.WriteZeroes, offset, length, BlockFlags.MayUnmap);
            node.Submit(_request);
            _loop.DeliverUntil(_over.Task);
            if (_over.Task.Result is var status && status != DiskStatus.Ok)
            {
                string why = status == DiskStatus.NoSpace ? "the host has no space" : "the host failed, or the image is damaged";
                throw new BlockException(BlockErrorKind.Io, $"disk {_path} is not made larger: {why}") { Path = _path, Status = status };
            }
        }

        public void Dispose() => _loop.Remove(_request);
    }
}
