using Microsoft.Win32.SafeHandles;
using Vmm.Interop;
using Vmm.Machine.Saved;
using Vmm.Memory;
using Vmm.State;
using Xunit;

namespace Vmm.Machine.Tests.Saved;

/// <summary>The memory files of saved VMs, without a machine: pages here and there, in pieces of any length.</summary>
public sealed class MemoryImageTests : IDisposable
{
    private const int PageBytes = 4096, MiB = 1 << 20;
    private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("vmm-image-");
    private int _files;

    public void Dispose() => _folder.Delete(recursive: true);

    [Fact]
    public void What_was_written_is_read_again_and_what_was_never_touched_stays_so()
    {
        for (int seed = 0; seed < 24; seed++)
        {
            Random random = new(seed);
            int bytes = (random.Next(1, 5) * MiB) + (random.Next(0, 2) * random.Next(1, 256) * PageBytes);
            string path = NewPath();
            using VnodeMemory memory = Memory(bytes), back = Memory(bytes);
            byte[] content = Touch(memory, bytes, random);
            SavedVnodeV1 saved = Write(memory, path, bytes);
            Assert.Equal(Sums(content), saved.Checksums);
            Assert.Equal(Data(content), Data(path));

            using (SafeFileHandle file = File.OpenHandle(path))
            {
                MemoryImage.Read(back, file, saved, "memory", progress: null, CancellationToken.None);
            }

            Assert.Equal(Pages(content) * PageBytes, (long)MemoryImage.DataBytes(new MemoryPart(0, back, Device: null)));
            byte[] read = new byte[bytes];
            back.CopyTo(0, read);
            Assert.True(content.AsSpan().SequenceEqual(read));
        }
    }

    [Fact]
    public void A_changed_byte_a_hole_more_and_data_where_none_was_are_found_eagerly_and_lazily()
    {
        const int Bytes = 3 * MiB;
        for (int seed = 0; seed < 30; seed++)
        {
            Random random = new(seed);
            string path = NewPath();
            using VnodeMemory memory = Memory(Bytes), back = Memory(Bytes);
            byte[] content = Touch(memory, Bytes, random);
            SavedVnodeV1 saved = Write(memory, path, Bytes);
            int at = random.Next(Bytes);
            using (SafeFileHandle file = File.OpenHandle(path, FileMode.Open, FileAccess.ReadWrite))
            {
                RandomAccess.Write(file, [(byte)(content[at] ^ (1 << random.Next(8)))], at);
            }

            using (SafeFileHandle file = File.OpenHandle(path))
            {
                StateException refused = Assert.Throws<StateException>(() =>
                    MemoryImage.Read(back, file, saved, "memory", progress: null, CancellationToken.None));
                Assert.Contains($"memory: the MiB at {at / MiB * MiB} ", refused.Message, StringComparison.Ordinal);
            }

            using SavedMemoryFile lazily = new(back, File.OpenHandle(path), saved, "memory");
            Assert.True(lazily.HasContent((ulong)(at / MiB)));
            Assert.Throws<Vmm.Memory.Paging.SavedPagesException>(() => lazily.Read((ulong)(at / MiB), new byte[MiB]));
        }
    }

    [Fact]
    public void A_file_whose_data_is_gone_is_refused_before_anything_is_read_of_it()
    {
        string path = NewPath();
        using VnodeMemory memory = Memory(2 * MiB);
        memory.Fill(MiB + PageBytes, new byte[] { 1 });
        SavedVnodeV1 saved = Write(memory, path, 2 * MiB);
        using (SafeFileHandle file = File.OpenHandle(path, FileMode.Create, FileAccess.ReadWrite))
        {
            RandomAccess.SetLength(file, 2 * MiB);
        }

        StateException refused = Assert.Throws<StateException>(() =>
            new SavedMemoryFile(memory, File.OpenHandle(path), saved, "memory").Dispose());
        Assert.Contains($"memory: the MiB at {MiB} ", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Only_what_holds_data_is_read_from_the_file()
    {
        // One page in each MiB: a file of 64 MiB whose holes would be read, too, costs 64 MiB of reads.
        const int Bytes = 64 * MiB;
        string path = NewPath();
        using VnodeMemory memory = Memory(Bytes), back = Memory(Bytes);
        for (int at = 0; at < Bytes; at += MiB)
        {
            memory.Fill((ulong)at, new byte[] { 7 });
        }

        SavedVnodeV1 saved = Write(memory, path, Bytes);
        using SafeFileHandle file = File.OpenHandle(path);
        long before = ReadBytes();
        MemoryImage.Read(back, file, saved, "memory", progress: null, CancellationToken.None);
        Assert.InRange(ReadBytes() - before, 64 * PageBytes, 16 * MiB); // of this process: other tests read beside it
    }

    private string NewPath() => Path.Combine(_folder.FullName, $"memory-{_files++}");

    private static long ReadBytes() =>
        long.Parse(File.ReadLines("/proc/self/io").First()["rchar: ".Length..], System.Globalization.CultureInfo.InvariantCulture);

    private static VnodeMemory Memory(int bytes) => VnodeMemory.Create(
        new VnodePlacement(0, new ByteSize((ulong)bytes), new ByteSize(PageBytes), Policy: null, []), HostTopology.Read());

    // Runs of pages of random lengths, some of zeros, pages that are nearly zero among them.
    private static byte[] Touch(VnodeMemory memory, int bytes, Random random)
    {
        byte[] content = new byte[bytes];
        for (int run = random.Next(1, 60); run > 0; run--)
        {
            int first = random.Next(bytes / PageBytes), pages = Math.Min(random.Next(1, 50), (bytes / PageBytes) - first);
            Span<byte> filled = content.AsSpan(first * PageBytes, pages * PageBytes);
            switch (random.Next(3))
            {
                case 0: random.NextBytes(filled); break;
                case 1: filled[random.Next(filled.Length)] = 1; break;
                default: filled.Clear(); break;
            }

            memory.Fill((ulong)first * PageBytes, filled);
        }

        return content;
    }

    private static SavedVnodeV1 Write(VnodeMemory memory, string path, int bytes)
    {
        using SafeFileHandle file = File.OpenHandle(path, FileMode.CreateNew, FileAccess.ReadWrite);
        byte[] checksums = MemoryImage.Write(new MemoryPart(0, memory, Device: null), file, progress: null, CancellationToken.None);
        return new SavedVnodeV1 { Vnode = 0, Bytes = (ulong)bytes, Checksums = checksums };
    }

    private static byte[] Sums(byte[] content)
    {
        List<byte> sums = [];
        for (int at = 0; at < content.Length; at += MiB)
        {
            sums.AddRange(BitConverter.GetBytes(Crc32C.Of(content.AsSpan(at, Math.Min(MiB, content.Length - at)))));
        }

        return [.. sums];
    }

    private static long Pages(byte[] content) =>
        Enumerable.Range(0, content.Length / PageBytes).Count(p => content.AsSpan(p * PageBytes, PageBytes).ContainsAnyExcept((byte)0));

    private static string Data(byte[] content) => string.Concat(
        Enumerable.Range(0, content.Length / PageBytes)
            .Select(p => content.AsSpan(p * PageBytes, PageBytes).ContainsAnyExcept((byte)0) ? '#' : '.'));

    private static string Data(string path)
    {
        using SafeFileHandle file = File.OpenHandle(path);
        char[] pages = [.. Enumerable.Repeat('.', (int)(RandomAccess.GetLength(file) / PageBytes))];
        for (ulong at = 0; DataExtents.TryFindNext(file, at, out ulong start, out ulong end); at = end)
        {
            pages.AsSpan((int)(start / PageBytes), (int)((end - start) / PageBytes)).Fill('#');
        }

        return new string(pages);
    }
}
