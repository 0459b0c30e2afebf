using System.Buffers.Binary;
using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage.Tests;

/// <summary>
/// Front ends of one disk, each with a loop and a thread of its own, that write, zero, discard and read at random, also over each other.
/// Each sector that one writes says who wrote it, when, and where.
/// </summary>
internal sealed class Writers : IDisposable
{
    private const int Sector = 512, Depth = 6, MostSectors = 700;

    private readonly List<Thread> _threads = [];
    private readonly int _size;
    private volatile bool _stop;
    private Exception? _failure;
    private long _count;

    public Writers(IDiskBackend disk, int queues, int seed, int size)
    {
        _size = size;
        for (int i = 0; i < queues; i++)
        {
            int queue = i;
            Thread thread = new(() => Run(disk, queue, seed));
            _threads.Add(thread);
            thread.Start();
        }
    }

    /// <summary>Requests that ended.</summary>
    public long Count => Interlocked.Read(ref _count);

    /// <summary>Discards are among the requests; writes otherwise.</summary>
    public bool Discards { get; init; } = true;

    public void RunUntil(Func<bool> done) => Assert.True(
        SpinWait.SpinUntil(() => done() || _failure is not null, 60_000) && _failure is null, $"{_failure}");

    public void RunFor(int milliseconds) => Thread.Sleep(milliseconds);

    public void Dispose()
    {
        _stop = true;
        _threads.ForEach(thread => thread.Join());
        Assert.Null(_failure);
    }

    /// <summary>Each sector is as it was, zero, or what a writer wrote to this place.</summary>
    public void CheckSectors(byte[] content, byte[] before)
    {
        for (int at = 0; at < content.Length; at += Sector)
        {
            ReadOnlySpan<byte> sector = content.AsSpan(at, Sector);
            bool isKnown = sector.SequenceEqual(before.AsSpan(at, Sector)) || !sector.ContainsAnyExcept((byte)0)
                || (BinaryPrimitives.ReadInt32LittleEndian(sector) == at && !sector[8..].ContainsAnyExcept(sector[8]));
            Assert.True(isKnown, $"the sector at {at} is a mixture");
        }
    }

    private void Run(IDiskBackend disk, int queue, int seed)
    {
        try
        {
            using DiskDriver driver = new(disk, Depth);
            using NativeArray<byte> memory = new(Depth * MostSectors * Sector, 4096);
            using NativeArray<IoVector> vectors = new(Depth);
            Random random = new((seed * 31) + queue);
            for (int write = 0; !_stop; write++)
            {
                for (int i = 0; i < Depth; i++)
                {
                    Submit(driver, i, random, memory, vectors, (byte)((write * 7) + (queue * 61) + i));
                }

                driver.WaitForAll();
                for (int i = 0; i < Depth; i++)
                {
                    Assert.Equal(DiskStatus.Ok, driver.Status(i));
                }

                Interlocked.Add(ref _count, Depth);
            }
        }
        catch (Exception failure)
        {
            _failure = failure;
        }
    }

    private void Submit(
        DiskDriver driver, int index, Random random, NativeArray<byte> memory, NativeArray<IoVector> vectors, byte mark)
    {
        int sectors = random.Next(8) == 0 ? random.Next(1, MostSectors) : random.Next(1, 16);
        int at = random.Next(0, (_size / Sector) - sectors) * Sector, length = sectors * Sector;
        BlockKind kind = random.Next(10) switch
        {
            0 => BlockKind.WriteZeroes,
            1 when Discards => BlockKind.Discard,
            2 => BlockKind.Flush,
            3 => BlockKind.Read,
            _ => BlockKind.Write,
        };
        int from = index * MostSectors * Sector;
        Span<byte> data = memory.Span.Slice(from, length);
        for (int sector = 0; sector < sectors; sector++)
        {
            Span<byte> bytes = data.Slice(sector * Sector, Sector);
            bytes.Fill(mark);
            BinaryPrimitives.WriteInt32LittleEndian(bytes, at + (sector * Sector));
        }

        vectors.Span[index] = new IoVector(memory.AddressOf(from), (nuint)length);
        bool isFlush = kind == BlockKind.Flush;
        BlockFlags flags = kind == BlockKind.Write && random.Next(8) == 0 ? BlockFlags.Fua : BlockFlags.None;
        driver[index].Prepare(kind, isFlush ? 0 : (ulong)at, isFlush ? 0 : (uint)length, flags);
        driver[index].SetData(vectors.Span.Slice(index, 1));
        driver.Node.Submit(driver[index]);
    }
}
