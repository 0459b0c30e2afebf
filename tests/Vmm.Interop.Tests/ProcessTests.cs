namespace Vmm.Interop.Tests;

public sealed class ProcessTests
{
    [Fact]
    public void A_child_gets_its_descriptors_and_tells_how_it_ended()
    {
        (UnixStream own, FileDescriptorHandle theirs) = UnixStream.CreatePair();
        using (own)
        using (theirs)
        {
            using ProcessHandle child = ProcessHandle.Spawn(
                "/bin/sh", ["-c", "printf hi >&3; read x <&4; exit 7"], new Dictionary<string, string>(), [theirs, theirs]);
            Assert.Null(child.Wait(50));
            byte[] text = new byte[16];
            int got = -1;
            Assert.True(SpinWait.SpinUntil(() => (got = own.Receive(text)) > 0, TimeSpan.FromSeconds(30)));
            Assert.Equal("hi", System.Text.Encoding.ASCII.GetString(text, 0, got));
            Assert.Equal(1, own.Send("\n"u8));
            Assert.Equal(new ProcessEnd(true, 0, 7), child.Wait(30000));
            child.Kill(); // gone already: nothing
        }
    }

    [Fact]
    public void A_killed_child_tells_the_signal_and_a_stranger_only_that_it_is_gone()
    {
        using ProcessHandle child = ProcessHandle.Spawn("/bin/sleep", ["1000"], new Dictionary<string, string>(), []);
        using ProcessHandle again = ProcessHandle.Open(child.ProcessId);
        child.Kill();
        Assert.Equal(new ProcessEnd(true, 9, 0), child.Wait(30000));
        Assert.Equal(default(ProcessEnd), again.Wait(30000)); // reaped by the other handle
        Assert.Equal(
            Errno.ENOENT,
            Assert.Throws<KernelException>(() => ProcessHandle.Spawn("/nonexistent", [], new Dictionary<string, string>(), [])).Errno);
        Assert.Equal(Errno.ESRCH, Assert.Throws<KernelException>(() => ProcessHandle.Open(child.ProcessId)).Errno);
    }

    [Fact]
    public void Random_bytes_differ()
    {
        byte[] one = new byte[64], two = new byte[64];
        HostRandom.Fill(one);
        HostRandom.Fill(two);
        Assert.NotEqual(one, two);
    }

    [Fact]
    public void Errno_is_the_one_of_the_call()
    {
        using FileDescriptorHandle nobody = new(1_000_000);
        EventFd bell = new();
        bell.Dispose();
        Assert.Throws<ObjectDisposedException>(bell.Signal);
        Assert.Equal(Errno.EBADF, Assert.Throws<KernelException>(() => PacketListener.Listen(nobody)).Errno);
        // ppoll: above RLIMIT_NOFILE
        Assert.Equal(Errno.EINVAL, Assert.Throws<KernelException>(() => Poll.Wait(new PollEntry[2_000_000], 0)).Errno);
        Assert.Equal(Errno.EBADF, Assert.Throws<KernelException>(() => BlockFile.Inspect(nobody)).Errno);
        Assert.Equal(Errno.EISDIR, Assert.Throws<KernelException>(() => BlockFile.Open("/", false, false)).Errno);
        Assert.Equal(Errno.ENOTBLK, Assert.Throws<KernelException>(() => BlockFile.Open("/dev/null", false, false)).Errno);
        Assert.Equal(
            (PathKind.Missing, PathKind.Directory, PathKind.File),
            (BlockFile.Kind("/nowhere"), BlockFile.Kind("/proc"), BlockFile.Kind("/dev/null")));
        Assert.Equal(PathKind.Missing, BlockFile.Kind("a\0b"));
    }
}
