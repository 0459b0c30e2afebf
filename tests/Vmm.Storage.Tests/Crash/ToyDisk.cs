using Vmm.Io;

namespace Vmm.Storage.Tests.Crash;

/// <summary>What a toy does wrong on purpose.</summary>
[Flags]
internal enum ToyFaults
{
    None = 0,

    /// <summary>Flushes are answered, and not done.</summary>
    ForgetsFlushes = 1,

    /// <summary>Forced unit access is a plain write.</summary>
    ForgetsFua = 2,

    /// <summary>A failed flush is answered as a success.</summary>
    HidesFailedFlushes = 4,

    /// <summary>Now and then a write goes one sector too far.</summary>
    Misplaces = 8,

    /// <summary>Now and then the end of a range of zeros is forgotten.</summary>
    ZeroesTooLittle = 16,

    /// <summary>Failed writes are answered as successes.</summary>
    HidesFailedWrites = 32,

    /// <summary>A flush succeeds after one that failed, although what that one was for is lost.</summary>
    ForgetsFailedFlushes = 64,
}

/// <summary>
/// A raw disk of a size of its own over an image file: the simplest engine that is right, or wrong in known ways. What a failed flush was
/// for may be lost, so that no flush can succeed any more.
/// </summary>
internal sealed class ToyDisk(IImageFile file, ulong size, ToyFaults faults = ToyFaults.None) : IDiskBackend
{
    private volatile bool _lost;

    public BlockGeometry Geometry { get; } = file.Geometry with { CapacityBytes = size };

    public IBlockNode CreateNode(IoLoop loop, int depth) => new Node(this, loop, file.CreateNode(loop, depth), depth, faults);

    public void Dispose() => file.Dispose();

    private sealed class Node : IBlockNode, IBlockLeaf, IBlockOwner
    {
        private readonly ToyDisk _disk;
        private readonly IoLoop _loop;
        private readonly IBlockNode _file;
        private readonly ToyFaults _faults;
        private readonly BlockRequest[] _own, _original;
        private readonly Stack<int> _free = [];
        private TaskCompletionSource? _closed;
        private int _count;

        public Node(ToyDisk disk, IoLoop loop, IBlockNode file, int depth, ToyFaults faults)
        {
            (_disk, _loop, _file, _faults) = (disk, loop, file, faults);
            _original = new BlockRequest[depth];
            _own = [.. Enumerable.Range(0, depth).Select(i => new BlockRequest(this, i))];
            foreach (BlockRequest request in _own)
            {
                loop.Add(request);
                _free.Push(request.Token);
            }
        }

        public BlockGeometry Geometry => _disk.Geometry;

        public int InFlight { get; private set; }

        public bool WritesZeroesAsData(bool mayUnmap) => _file.WritesZeroesAsData(mayUnmap);

        public void Submit(BlockRequest request)
        {
            request.Run(this);
            InFlight++;
            _count++;
            bool flushes = request.Kind == BlockKind.Flush;
            if ((flushes && Has(ToyFaults.ForgetsFlushes)) || !(flushes || request.IsInside(Geometry)))
            {
                _loop.CompleteLater(request, (int)(flushes ? DiskStatus.Ok : DiskStatus.IoError));
                return;
            }

            BlockRequest own = _own[_free.Pop()];
            _original[own.Token] = request;
            Twist(request, own);
            own.SetData(request.Vectors);
            _file.Submit(own);
        }

        /// <summary>What never went to the file is over.</summary>
        public void OnStep(BlockRequest request, int result) => End(request, (DiskStatus)result);

        public void Completed(BlockRequest request, DiskStatus status)
        {
            _free.Push(request.Token);
            bool flushes = request.Kind == BlockKind.Flush;
            _disk._lost |= flushes && status != DiskStatus.Ok && !Has(ToyFaults.ForgetsFailedFlushes);
            status = flushes && _disk._lost ? DiskStatus.IoError : status;
            ToyFaults hides = request.Kind == BlockKind.Flush ? ToyFaults.HidesFailedFlushes : ToyFaults.HidesFailedWrites;
            End(_original[request.Token], Has(hides) && request.Kind != BlockKind.Read ? DiskStatus.Ok : status);
        }

        // Without await: under a test's own SynchronizationContext it would go on in another thread than the loop's.
        public ValueTask FlushAndCloseAsync()
        {
            if (_closed is null)
            {
                _closed = new TaskCompletionSource();
                CloseIfIdle();
            }

            return new ValueTask(_closed.Task);
        }

        public void Dispose()
        {
            this.WaitForAll(_loop);
            _file.Dispose();
        }

        private void CloseIfIdle()
        {
            if (_closed is null || InFlight > 0)
            {
                return;
            }

            if (Has(ToyFaults.ForgetsFlushes))
            {
                _file.Dispose();
                _closed.TrySetResult();
                return;
            }

            _ = _file.FlushAndCloseAsync().AsTask().ContinueWith(
                Closed, CancellationToken.None, TaskContinuationOptions.ExecuteSynchronously, TaskScheduler.Default);
        }

        private void Closed(Task file)
        {
            if (file.Exception is { } error)
            {
                _closed!.TrySetException(error.InnerExceptions);
            }
            else if (_disk._lost && !Has(ToyFaults.HidesFailedFlushes))
            {
                _closed!.TrySetException(new BlockException(BlockErrorKind.Io, "a flush failed before"));
            }
            else
            {
                _closed!.TrySetResult();
            }
        }

        private void End(BlockRequest request, DiskStatus status)
        {
            InFlight--;
            request.Complete(status);
            CloseIfIdle();
        }

        // Enum.HasFlag would allocate before it is compiled well.
        private bool Has(ToyFaults fault) => (_faults & fault) != 0;

        private void Twist(BlockRequest request, BlockRequest own)
        {
            (ulong offset, uint length, BlockFlags flags) = (request.Offset, request.Length, request.Flags);
            bool now = _count % 16 == 0;
            if (now && Has(ToyFaults.Misplaces) && request.Kind == BlockKind.Write && offset + length < Geometry.CapacityBytes)
            {
                offset += 512;
            }

            if (now && Has(ToyFaults.ZeroesTooLittle) && request.Kind == BlockKind.WriteZeroes)
            {
                length -= 512;
            }

            if (Has(ToyFaults.ForgetsFua))
            {
                flags &= ~BlockFlags.Fua;
            }

            own.Prepare(request.Kind, offset, length, flags);
        }
    }
}
