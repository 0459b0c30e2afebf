using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage.Qcow2;

/// <summary>
/// A chain of images as one loop reaches it. Payload moves directly between the request's memory and the file of the image that has it.
/// Where that is, <see cref="Chain"/> and <see cref="Placement"/> say from memory, under the disk's lock; what has to be waited for, an
/// operation waits for alone.
/// </summary>
internal sealed class Qcow2Node : IMappedNode, IBlockLeaf, IBlockOwner
{
    private readonly Qcow2Disk _disk;
    private readonly ImageState _state;
    private readonly IBlockNode[] _files;
    private readonly OperationSteps _steps;
    private readonly Stack<GuestOperation> _freeOperations = new();
    private readonly Action _runWoken;
    private OperationList _woken;
    private bool _isSubmitting, _disposed;
    private long _written, _flushed; // writes that ended, and those of them that a flush covers
    private TaskCompletionSource? _closed;
    private BlockRequest? _lastFlush;

    internal Qcow2Node(Qcow2Disk disk, IoLoop loop, int depth)
    {
        _disk = disk;
        _state = disk.State;
        Loop = loop;
        _runWoken = RunWoken;
        Parts = new PartPool(this, Math.Max(64, 4 * depth), 2 * disk.ClusterBytes, Math.Clamp((8 << 20) / (2 * disk.ClusterBytes), 2, 32));
        _files = new IBlockNode[_state.Chain.Layers.Length];
        for (int i = 0; i < _files.Length; i++)
        {
            _files[i] = _state.Chain.Layers[i].File.CreateNode(loop, Math.Max(128, 8 * depth));
        }

        _steps = new OperationSteps(this, disk);
    }

    public BlockGeometry Geometry =>
        HiddenEnd is { } end ? _disk.Geometry with { CapacityBytes = end } : _disk.Geometry;

    public int InFlight { get; private set; }

    /// <summary>Where its requests end when that is not where the disk does: for who makes the disk larger.</summary>
    internal ulong? HiddenEnd { get; init; }

    /// <summary>The loop of the node.</summary>
    internal IoLoop Loop { get; }

    /// <summary>Bytes that <see cref="Populate"/> copied.</summary>
    internal ulong Populated { get; set; }

    /// <summary>What <see cref="Map"/> found.</summary>
    internal Extent Mapped { get; set; }

    /// <summary>Its parts.</summary>
    internal PartPool Parts { get; }

    public bool WritesZeroesAsData(bool mayUnmap) => false;

    public void Submit(BlockRequest request)
    {
        if (_closed is not null)
        {
            throw new InvalidOperationException("The node is being closed.");
        }

        Start(request);
    }

    /// <summary>
    /// Brings a range up into the top image: what it has not, and images below it have, those from the second one to before
    /// <paramref name="bound"/>. The disk's content stays what it is, whoever writes meanwhile.
    /// </summary>
    /// <param name="request">A write of the range, without data.</param>
    /// <param name="bound">The first image, counted from the top, whose content stays where it is; their number for none.</param>
    internal void Populate(BlockRequest request, int bound) => Start(request, new LayerScope(Bound: bound));

    /// <summary>Reads what the images from <paramref name="from"/> on have. Nobody writes those while the disk is open.</summary>
    internal void ReadBelow(BlockRequest request, int from) => Start(request, new LayerScope(from));

    /// <summary>Asks where the first bytes of a range are, in the images from <paramref name="from"/> on: <see cref="Mapped"/>.</summary>
    /// <param name="request">A read of the range, without memory.</param>
    /// <param name="from">The first image that counts.</param>
    internal void Map(BlockRequest request, int from) => Start(request, new LayerScope(from, Maps: true));

    void IMappedNode.Ask(BlockRequest request) => Map(request, 0);

    MappedRange IMappedNode.Answer => new(Mapped.Length, Mapped.Kind == ExtentKind.Zero, Mapped.Layer);

    public void OnStep(BlockRequest request, int result) => End(request, (DiskStatus)result);

    /// <summary>The operation goes on, on the node's thread. Under the disk's lock, any thread.</summary>
    internal void Wake(GuestOperation operation)
    {
        bool first = _woken.IsEmpty;
        _woken.Add(operation);
        if (first)
        {
            Loop.Post(_runWoken);
        }
    }

    /// <summary>Sends a part to the file of its image.</summary>
    internal void Send(Part part) => _files[part.Layer].Submit(part.Request);

    /// <summary>Goes on with an operation that waits for nothing any more.</summary>
    internal void Advance(GuestOperation? operation)
    {
        if (operation is not null && _steps.Advance(operation))
        {
            FinishIfOver(operation);
        }
    }

    /// <summary>Begins to read what an allocation copies.</summary>
    internal void BeginFill(Part part, ulong offset, ulong length, nint vector)
    {
        GuestOperation fill = TakeOperation();
        fill.Begin(part, offset, length, vector);
        part.Fills++;
        Advance(fill);
    }

    /// <summary>Ends an operation of which everything was begun and nothing is in flight.</summary>
    internal void FinishIfOver(GuestOperation operation)
    {
        if (!operation.IsAllBegun || operation.Parts > 0)
        {
            return;
        }

        if (operation.FillOf is { } part)
        {
            DiskStatus status = operation.Status;
            _freeOperations.Push(operation);
            _steps.FillEnded(part, status);
            return;
        }

        if (_steps.BeginFlush(operation))
        {
            return;
        }

        if (operation.HasEntered)
        {
            lock (_state)
            {
                _state.Leave(operation.Period);
            }
        }

        BlockRequest request = operation.Request!;
        DiskStatus end = operation.Status;
        if (operation.Kind == BlockKind.Flush && end == DiskStatus.Ok)
        {
            _flushed = Math.Max(_flushed, operation.Covers);
        }

        _freeOperations.Push(operation);
        if (_isSubmitting)
        {
            Loop.CompleteLater(request, (int)end);
        }
        else
        {
            End(request, end);
        }
    }

    void IBlockOwner.Completed(BlockRequest request, DiskStatus status)
    {
        if (ReferenceEquals(request, _lastFlush))
        {
            LastFlushEnded(status);
            return;
        }

        _steps.PartEnded(Parts[request.Token], status);
    }

    public ValueTask FlushAndCloseAsync()
    {
        if (_closed is null && !_disposed)
        {
            _closed = new TaskCompletionSource();
            CloseIfIdle();
        }

        return _closed is null ? default : new ValueTask(_closed.Task);
    }

    public void Dispose()
    {
        if (_disposed)
        {
            return;
        }

        this.WaitForAll(Loop);
        _disposed = true;
        foreach (IBlockNode file in _files)
        {
            file.Dispose();
        }

        _steps.Dispose();
        Parts.Dispose();
        _disk.Left();
    }

    private void Start(BlockRequest request, in LayerScope scope = default)
    {
        request.Run(this);
        InFlight++;
        if (request.Kind == BlockKind.None || (request.Kind != BlockKind.Flush && !request.IsInside(Geometry)))
        {
            Loop.CompleteLater(request, (int)DiskStatus.IoError);
            return;
        }

        GuestOperation operation = TakeOperation();
        operation.Begin(request);
        operation.Scope = scope;
        operation.Covers = _written;
        bool nested = _isSubmitting;
        _isSubmitting = true;
        Advance(operation);
        _isSubmitting = nested;
    }

    private void End(BlockRequest request, DiskStatus status)
    {
        InFlight--;
        _written += request.Kind is BlockKind.Read or BlockKind.Flush ? 0 : 1;
        // Changed tables had no space: they are in memory, and are written when there is some. No flush of the file failed.
        request.LostNothing = request.Kind == BlockKind.Flush && status == DiskStatus.NoSpace && _state.LostFlush is null;
        request.Complete(status);
        if (_closed is not null && !_disposed)
        {
            CloseIfIdle();
        }
    }

    private GuestOperation TakeOperation() => _freeOperations.TryPop(out GuestOperation? free) ? free : new GuestOperation(this);

    private void RunWoken()
    {
        OperationList woken;
        lock (_state)
        {
            woken = _woken;
            _woken = default;
        }

        while (woken.Take() is { } operation)
        {
            Advance(operation);
        }

        Loop.Submit();
    }

    private void CloseIfIdle()
    {
        if (InFlight > 0)
        {
            return;
        }

        if (_written == _flushed)
        {
            Dispose();
            _closed!.SetResult();
            return;
        }

        if (_lastFlush is null)
        {
            _lastFlush = new BlockRequest(this);
            Loop.Add(_lastFlush);
            _lastFlush.Prepare(BlockKind.Flush);
            Start(_lastFlush);
            Loop.Submit();
        }
    }

    private void LastFlushEnded(DiskStatus status)
    {
        Loop.Remove(_lastFlush!);
        Dispose();
        if (status == DiskStatus.Ok)
        {
            _closed!.SetResult();
            return;
        }

        string message = $"disk {_disk.Path}: the flush at its end failed; what was written last may be lost";
        _closed!.SetException(new BlockException(BlockErrorKind.Io, message) { Path = _disk.Path, Status = status });
    }
}
