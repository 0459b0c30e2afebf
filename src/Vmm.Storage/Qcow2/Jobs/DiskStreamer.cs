using System.Diagnostics;

namespace Vmm.Storage.Qcow2;

/// <summary>
/// Streams a disk that is in use: a thread brings into the top image what it sees through images below it, at a rate. When all of it is
/// there and stable, the top's header can name another backing file, and the disk can be made anew without the images between. Any thread,
/// but for the steps, which are taken one at a time.
/// </summary>
public sealed class DiskStreamer : IDisposable
{
    private const uint Chunk = 1 << 20;

    private readonly Qcow2Disk _disk;
    private readonly int _bound;
    private readonly (string? Name, string? Format) _backing;
    private readonly ManualResetEventSlim _stop = new();
    private readonly Lock _gate = new();
    private MirrorReport _report = new(MirrorState.Copying, 0, null, DiskStatus.Ok);
    private Thread? _thread;

    /// <summary>Begins with an open disk; nothing is brought up yet.</summary>
    /// <param name="disk">The disk.</param>
    /// <param name="baseFile">The image below it on which it stands afterwards: its path, or the last part of that; null: on none.</param>
    /// <exception cref="BlockException">It is read only, has nothing to stream, or does not stand on that.</exception>
    public DiskStreamer(Qcow2Disk disk, string? baseFile)
    {
        _disk = disk;
        _bound = baseFile is null ? disk.Images : ChainPlace.Find(disk, baseFile);
        _backing = baseFile is null ? (null, null) : ChainPlace.NameOf(disk, _bound);
        string? problem = !disk.IsWritable ? "is read only"
            : disk.Images == 1 ? "has no backing file: there is nothing to stream"
            : _bound == 1 ? $"stands on {baseFile} already: there is nothing between"
            : null;
        if (problem is not null)
        {
            throw new BlockException(BlockErrorKind.NotADisk, $"disk {disk.Path} {problem}") { Path = disk.Path };
        }
    }

    /// <summary>Bytes to go through.</summary>
    public ulong TotalBytes => _disk.Geometry.CapacityBytes;

    /// <summary>How far it is: Copying, Mirrored when all is there and stable, Ended when nothing comes of it.</summary>
    public MirrorReport Report
    {
        get
        {
            lock (_gate)
            {
                return _report;
            }
        }
    }

    /// <summary>Starts the thread.</summary>
    /// <param name="bytesPerSecond">Most bytes to copy in a second; 0 is no limit.</param>
    /// <param name="run">Runs the thread.</param>
    /// <param name="ready">Called on the thread when it has what it needs of the host.</param>
    public void Start(ulong bytesPerSecond, Action<Thread> run, Action? ready = null)
    {
        Thread thread = new(() => Run(bytesPerSecond, ready), maxStackSize: 256 * 1024) { Name = "disk-stream", IsBackground = true };
        _disk.Ending = Stop;
        run(thread);
        _thread = thread;
    }

    /// <summary>The top's header names the image that stays, or none. From then on a disk can be made without those between.</summary>
    /// <exception cref="BlockException">The host failed: the header names one or the other, and both are right.</exception>
    /// <exception cref="InvalidOperationException">Not everything is there.</exception>
    public void ChangeBacking()
    {
        if (Report.State != MirrorState.Mirrored)
        {
            throw new InvalidOperationException($"disk {_disk.Path}: not everything is streamed yet");
        }

        _thread?.Join();
        _disk.ChangeBacking(_backing.Name, _backing.Format);
    }

    /// <summary>The images that stay, and those that are not needed any more.</summary>
    /// <param name="layers">The images of the disk, the top first.</param>
    public (IReadOnlyList<ImageLayer> Stay, IReadOnlyList<ImageLayer> Gone) Divide(IReadOnlyList<ImageLayer> layers) =>
        ([layers[0], .. layers.Skip(_bound)], [.. layers.Take(_bound).Skip(1)]);

    /// <summary>Ends it, whatever it is at; returns when nothing of it is in flight. What was brought up stays.</summary>
    public void Stop()
    {
        _stop.Set();
        _thread?.Join();
        _disk.Ending = null;
        End(MirrorState.Ended, null, DiskStatus.Ok);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Stop();
        _stop.Dispose();
    }

    private void Run(ulong bytesPerSecond, Action? ready)
    {
        try
        {
            using ChainPopulate populate = new(_disk, _bound);
            ready?.Invoke();
            Bring(populate, bytesPerSecond);
        }
#pragma warning disable CA1031 // Whatever fails here ends the stream, not the disk.
        catch (Exception cause)
#pragma warning restore CA1031
        {
            End(MirrorState.Ended, $"the stream failed: {cause.Message}", DiskStatus.IoError);
        }
    }

    private void Bring(ChainPopulate populate, ulong bytesPerSecond)
    {
        long free = Stopwatch.GetTimestamp(); // when the next chunk may be copied
        for (ulong at = 0; at < TotalBytes; at += Chunk)
        {
            TimeSpan left = Stopwatch.GetElapsedTime(Stopwatch.GetTimestamp(), free);
            if (_stop.IsSet || (left > TimeSpan.Zero && _stop.Wait(left)))
            {
                return;
            }

            ulong before = populate.Copied;
            DiskStatus status = populate.Bring(at, (uint)Math.Min(Chunk, TotalBytes - at));
            if (status != DiskStatus.Ok)
            {
                End(MirrorState.Ended, status == DiskStatus.NoSpace ? $"the file system of {_disk.Path} is full"
                    : $"the host fails requests at byte {at}", status);
                return;
            }

            if (bytesPerSecond > 0)
            {
                double seconds = (double)(populate.Copied - before) / bytesPerSecond;
                free = Math.Max(free, Stopwatch.GetTimestamp()) + (long)(seconds * Stopwatch.Frequency);
            }

            lock (_gate)
            {
                _report = _report with { CopiedBytes = Math.Min(TotalBytes, at + Chunk) };
            }
        }

        DiskStatus flushed = populate.Flush();
        End(flushed == DiskStatus.Ok ? MirrorState.Mirrored : MirrorState.Ended,
            flushed == DiskStatus.Ok ? null : $"{_disk.Path} cannot be made stable", flushed);
    }

    private void End(MirrorState state, string? problem, DiskStatus status)
    {
        lock (_gate)
        {
            _report = _report.State == MirrorState.Ended ? _report : _report with { State = state, Problem = problem, Status = status };
        }
    }
}
