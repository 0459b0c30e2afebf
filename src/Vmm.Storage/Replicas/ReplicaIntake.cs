using Microsoft.Win32.SafeHandles;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Storage.Replicas;

/// <summary>
/// A point that comes: its sealed deltas in files as long as what has arrived. What is appended is stable before it counts. After a power
/// cut a file may have bytes that were never stable; they are found when it is sealed. Several threads may append, to different disks.
/// </summary>
public sealed class ReplicaIntake
{
    private readonly ReplicaIntakes _intakes;
    private readonly Lock[] _locks;
    private readonly ulong[] _arrived;

    internal ReplicaIntake(ReplicaIntakes intakes, string folder, SealedPoint point, ulong[] arrived)
    {
        (_intakes, Folder, Point, _arrived) = (intakes, folder, point, arrived);
        _locks = [.. arrived.Select(_ => new Lock())];
    }

    /// <summary>What it is to become.</summary>
    public SealedPoint Point { get; }

    /// <summary>Bytes of each disk's delta that are stable, in the order of <see cref="SealedPoint.Disks"/>.</summary>
    public IReadOnlyList<ulong> Arrived => [.. _arrived.Select((_, i) => Volatile.Read(ref _arrived[i]))];

    /// <summary>True when all bytes of all deltas are there.</summary>
    public bool IsComplete => Arrived.SequenceEqual(Point.Disks.Select(disk => disk.Stored));

    /// <summary>Its folder.</summary>
    internal string Folder { get; }

    /// <summary>Appends bytes to the delta of a disk, and makes them stable.</summary>
    /// <param name="disk">The disk.</param>
    /// <param name="offset">Where they belong.</param>
    /// <param name="bytes">The bytes.</param>
    /// <param name="arrived">How many of the delta are stable now.</param>
    /// <returns>False, with nothing changed, when <paramref name="offset"/> is not what has arrived.</returns>
    /// <exception cref="BlockException">There is no such disk, there would be more bytes than were offered, or the host failed: what had
    /// arrived before is there.</exception>
    public bool TryAppend(string disk, ulong offset, ReadOnlySpan<byte> bytes, out ulong arrived)
    {
        int index = IndexOf(disk);
        lock (_locks[index])
        {
            arrived = _arrived[index];
            if (offset != arrived)
            {
                return false;
            }

            if ((ulong)bytes.Length > Point.Disks[index].Stored - arrived)
            {
                throw ReplicaError.Damaged(
                    PathOf(disk), $"{bytes.Length} bytes at {offset} are more than the {Point.Disks[index].Stored} that were offered");
            }

            Store(PathOf(disk), offset, bytes);
            Volatile.Write(ref _arrived[index], arrived += (uint)bytes.Length);
            return true;
        }
    }

    /// <summary>
    /// Checks all deltas, arranges them as images over those of the newest point, and makes the point the newest one. When this throws,
    /// the newest point is the one before.
    /// </summary>
    /// <param name="progress">What to tell.</param>
    /// <exception cref="BlockException">Bytes are missing; a delta is damaged, or not what was offered, or does not stand on the newest
    /// point; or the host failed.</exception>
    /// <exception cref="OperationCanceledException">The caller gave up.</exception>
    public ArrangedPoint Seal(ToolProgress? progress = null) => _intakes.Arrange(this, progress ?? ToolProgress.None);

    /// <summary>Nothing becomes of it: what has arrived is removed.</summary>
    /// <exception cref="BlockException">The host failed.</exception>
    public void Drop() => _intakes.Drop(this);

    /// <summary>The delta of a disk.</summary>
    internal string PathOf(string disk) => Path.Combine(Folder, disk + ReplicaSpool.DeltaSuffix);

    private static void Store(string path, ulong offset, ReadOnlySpan<byte> bytes)
    {
        try
        {
            using SafeFileHandle file = File.OpenHandle(path, FileMode.OpenOrCreate, FileAccess.Write, FileShare.Read);
            try
            {
                RandomAccess.Write(file, bytes, (long)offset);
                RandomAccess.FlushToDisk(file);
            }
            catch (IOException)
            {
                RandomAccess.SetLength(file, (long)offset); // what is not stable has not arrived
                throw;
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw ReplicaError.Failed(path, "cannot be written", e);
        }
    }

    private int IndexOf(string disk)
    {
        for (int i = 0; i < Point.Disks.Count; i++)
        {
            if (string.Equals(Point.Disks[i].Name, disk, StringComparison.Ordinal))
            {
                return i;
            }
        }

        throw new BlockException(BlockErrorKind.NotFound, $"point {Point.Id} has no disk of that name");
    }
}
