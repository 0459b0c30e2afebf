using System.Diagnostics;
using Vmm.Interop;
using Vmm.Io;
using Vmm.Storage.Qcow2;
using Vmm.Storage.Tests.Qcow2;

namespace Vmm.Storage.Tests;

/// <summary>Who may use a disk's file beside whom, programs of QEMU among them; and what an error says of who has it.</summary>
public sealed class DiskLockTests : IDisposable
{
    private static readonly RawFileOptions s_write = new() { IsImage = true }, s_read = new() { IsImage = true, ReadOnly = true };

    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-lk-").FullName;

    public DiskLockTests() => QemuImg.Run("create", "-f", "qcow2", Image, "8M");

    private string Image => Path.Combine(_folder, "disk.qcow2");

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Theory]
    [InlineData(DiskCacheMode.Direct)]
    [InlineData(DiskCacheMode.Buffered)]
    public void Programs_of_qemu_keep_off_what_is_written(DiskCacheMode cache)
    {
        using (RawFileBackend.Open(Image, s_write with { Cache = cache }))
        {
            foreach (string verb in (string[])["info", "check"])
            {
                (int code, string said) = QemuImg.Try(verb, Image);
                Assert.True(code != 0 && said.Contains("lock", StringComparison.Ordinal), said);
            }
        }

        QemuImg.Run("check", Image);
    }

    [Fact]
    public void Programs_of_qemu_read_what_is_read_and_do_not_write_it()
    {
        using RawFileBackend ours = RawFileBackend.Open(Image, s_read);
        QemuImg.Run("info", Image);
        QemuImg.Run("check", Image);
        (int code, string said) = QemuImg.Try("resize", Image, "16M");
        Assert.True(code != 0 && said.Contains("lock", StringComparison.Ordinal), said);
    }

    [Fact]
    public void A_file_that_qemu_writes_is_refused_with_the_name_of_the_program()
    {
        using Process qemu = Start("bench", "-w", "-c", "1000000000", "-f", "qcow2", Image);
        try
        {
            string said = Refused(s_write, qemu);
            string holder = $"qemu-img (process {qemu.Id}) on {Environment.MachineName}";
            Assert.Contains($"{Image} is in use by {holder}", said, StringComparison.Ordinal);
            Assert.Contains($"is being written by qemu-img (process {qemu.Id})", Refused(s_read, qemu), StringComparison.Ordinal);
        }
        finally
        {
            qemu.Kill();
            qemu.WaitForExit();
        }
    }

    [Fact]
    public void A_file_that_qemu_reads_is_read_and_not_written()
    {
        using Process qemu = Start("bench", "-c", "1000000000", "-f", "qcow2", Image);
        try
        {
            Assert.Contains($"qemu-img (process {qemu.Id})", Refused(s_write, qemu), StringComparison.Ordinal);
            RawFileBackend.Open(Image, s_read).Dispose();
        }
        finally
        {
            qemu.Kill();
            qemu.WaitForExit();
        }
    }

    [Fact]
    public void A_holder_that_runs_a_vm_is_told_by_the_vms_name()
    {
        using RawFileBackend ours = RawFileBackend.Open(Image, s_write);
        string? NameOf(int process) => process == Environment.ProcessId ? "web1" : null;
        BlockException refused = Assert.Throws<BlockException>(() => RawFileBackend.Open(Image, s_write with { VmOf = NameOf }));
        Assert.Contains($"in use by VM web1 (process {Environment.ProcessId}) on ", refused.Message, StringComparison.Ordinal);
        Assert.Contains(
            $"(process {Environment.ProcessId}) on ",
            Assert.Throws<BlockException>(() => RawFileBackend.Open(Image, s_read)).Message,
            StringComparison.Ordinal);
    }

    [Fact]
    public void A_reader_of_an_earlier_release_which_locks_all_bytes_is_one_reader_more()
    {
        using FileDescriptorHandle earlier = BlockFile.Open(Image, writable: false, direct: false);
        Assert.True(BlockFile.TryLock(earlier, exclusive: false));
        RawFileBackend.Open(Image, s_read).Dispose();
        Assert.Equal(BlockErrorKind.InUse, Assert.Throws<BlockException>(() => RawFileBackend.Open(Image, s_write)).Kind);
        BlockFile.Unlock(earlier, 0, 0);
        Assert.True(BlockFile.TryLock(earlier, exclusive: false));
        using FileDescriptorHandle writer = BlockFile.Open(Image, writable: true, direct: false);
        BlockFile.Unlock(earlier, 0, 0);
        Assert.True(BlockFile.TryLock(writer, exclusive: true)); // and a writer of one keeps all off
        Assert.Throws<BlockException>(() => RawFileBackend.Open(Image, s_read));
    }

    /// <summary>An image that becomes a base lets readers in and no writer; on the way back it is its writer's alone.</summary>
    [Theory]
    [InlineData(DiskCacheMode.Direct)]
    [InlineData(DiskCacheMode.Buffered)]
    public void A_lock_changes_with_the_place_in_the_chain(DiskCacheMode cache)
    {
        using RawFileBackend ours = RawFileBackend.Open(Image, s_write with { Cache = cache });
        for (int round = 0; round < 2; round++)
        {
            ours.BecomeBase();
            Assert.True(ours.Geometry.ReadOnly);
            QemuImg.Run("check", Image);
            Assert.NotEqual(0, QemuImg.Try("resize", Image, "16M").Code);
            Assert.Throws<BlockException>(() => RawFileBackend.Open(Image, s_write));
            using (RawFileBackend.Open(Image, s_read))
            {
                Assert.False(ours.TryBecomeTop());
                QemuImg.Run("check", Image);
            }

            Assert.True(ours.TryBecomeTop());
            Assert.False(ours.Geometry.ReadOnly);
            Assert.Throws<BlockException>(() => RawFileBackend.Open(Image, s_read));
            Assert.NotEqual(0, QemuImg.Try("info", Image).Code);
        }
    }

    /// <summary>
    /// When a process is killed its descriptors are closed at once, and an open file goes when its last request ends. Requests of O_DIRECT
    /// are of another open file than the rest: each of the two keeps others off.
    /// </summary>
    [Fact]
    public void Each_open_file_of_a_writer_keeps_others_off_until_it_is_gone()
    {
        string disk = Path.Combine(_folder, "raw");
        File.WriteAllBytes(disk, new byte[1 << 20]);
        foreach (bool directFirst in (bool[])[false, true])
        {
            RawFileBackend killed = RawFileBackend.Open(disk);
            Assert.True(killed.UsesDirectIo, "the file system of the temporary folder has O_DIRECT");
            (directFirst ? killed.Direct! : killed.Buffered).Dispose();
            foreach (bool readOnly in (bool[])[true, false])
            {
                BlockException refused = Assert.Throws<BlockException>(
                    () => RawFileBackend.Open(disk, new RawFileOptions { ReadOnly = readOnly }));
                Assert.Equal(BlockErrorKind.InUse, refused.Kind);
            }

            killed.Dispose();
            RawFileBackend.Open(disk).Dispose();
        }
    }

    [Fact]
    public void A_disk_is_unlocked_after_the_last_write_of_its_tables()
    {
        List<string> calls = [];
        ImageLayer top = new(new Recorder(new RawImageFile(RawFileBackend.Open(Image, s_write)), calls), ImageFormat.Qcow2);
        Qcow2Disk disk = Qcow2Disk.Open([top]);
        using (DiskDriver driver = new(loop => disk.CreateNode(loop, 4), 4))
        {
            byte[] content = new byte[65536];
            content.AsSpan().Fill(7);
            Assert.Equal(DiskStatus.Ok, driver.Write(0, content));
        }

        disk.Dispose();
        Assert.Equal("dispose", calls[^1]);
        Assert.Equal("flush", calls[^2]); // what was reserved and not used is given back, and that is stable
        Assert.Contains("write", calls);
        QemuImg.Run("check", Image);
    }

    private static Process Start(params string[] words) => Process.Start(new ProcessStartInfo("qemu-img", words)
    {
        RedirectStandardOutput = true,
        RedirectStandardError = true,
        UseShellExecute = false,
    })!;

    private string Refused(RawFileOptions options, Process qemu)
    {
        for (int wait = 0; wait < 500 && !qemu.HasExited; wait++)
        {
            try
            {
                RawFileBackend.Open(Image, options).Dispose(); // it has not opened it yet
                Thread.Sleep(10);
            }
            catch (BlockException refused)
            {
                Assert.Equal(BlockErrorKind.InUse, refused.Kind);
                return refused.Message;
            }
        }

        throw new InvalidOperationException("qemu-img does not use the file: " + (qemu.HasExited ? qemu.StandardError.ReadToEnd() : ""));
    }

    /// <summary>A file whose calls are written down.</summary>
    private sealed class Recorder(IImageFile inner, List<string> calls) : IImageFile
    {
        public string Path => inner.Path;

        public ulong Length => inner.Length;

        public bool IsWritable => inner.IsWritable;

        public BlockGeometry Geometry => inner.Geometry;

        public IBlockNode CreateNode(IoLoop loop, int depth) => inner.CreateNode(loop, depth);

        public void Read(Span<byte> destination, ulong offset) => inner.Read(destination, offset);

        public void Write(ReadOnlySpan<byte> bytes, ulong offset)
        {
            Note("write");
            inner.Write(bytes, offset);
        }

        public void Flush()
        {
            Note("flush");
            inner.Flush();
        }

        public bool TryPunch(ulong offset, ulong length) => inner.TryPunch(offset, length);

        public void Grow(ulong length) => inner.Grow(length);

        public void Dispose()
        {
            Note("dispose");
            inner.Dispose();
        }

        private void Note(string call)
        {
            lock (calls)
            {
                calls.Add(call);
            }
        }
    }
}
