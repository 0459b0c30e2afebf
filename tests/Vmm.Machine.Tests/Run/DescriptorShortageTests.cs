using System.Diagnostics;
using Vmm.Interop;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Memory;
using Vmm.Spec;
using Vmm.Storage;
using Vmm.Testing;
using static Vmm.Machine.Tests.Run.GuestKit;

namespace Vmm.Machine.Tests.Run;

/// <summary>
/// What fails because the process has no descriptor left leaves nothing behind, whichever descriptor it is that is missing.
/// </summary>
[Collection(Alone.Name)]
[Trait("Tier", "kvm")]
public sealed class DescriptorShortageTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-descriptors-").FullName;
    private readonly Terminal _terminal = new();

    public void Dispose()
    {
        _terminal.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    [KvmFact]
    public void A_disk_that_cannot_be_plugged_is_closed()
    {
        using VirtualMachine machine = VirtualMachine.Create(GuestSpec("hotplug") with { Memory = ByteSize.MiB(64) }, _terminal);
        DiskSpec disk = new() { Path = Path.Combine(_folder, "disk"), Cache = DiskCache.Buffered, Queues = 4 };
        File.WriteAllBytes(disk.Path, new byte[1 << 20]);
        using DescriptorLimit limit = new();
        for (int left = 0; ; left++)
        {
            IDiskBackend backend = new PathResources().OpenDisk(0, disk);
            bool plugged = limit.With(left, () =>
            {
                try
                {
                    machine.AddDisk(disk, backend);
                    return true;
                }
                catch (KernelException none) when (none.Errno == 24) // EMFILE
                {
                    return false;
                }
            });
            if (plugged)
            {
                Assert.InRange(left, 1, 100);
                return;
            }

            Assert.DoesNotContain(disk.Path, Directory.GetFiles("/proc/self/fd").Select(fd => new FileInfo(fd).LinkTarget));
            using (RawFileBackend.Open(disk.Path, new RawFileOptions())) { } // and its lock is free
        }
    }

    /// <summary>How many descriptors this process may have; a helper sets it, which was started while there were enough.</summary>
    private sealed class DescriptorLimit : IDisposable
    {
        private readonly Process _helper;
        private readonly List<IDisposable> _fill = [];

        public DescriptorLimit()
        {
            _helper = Process.Start(new ProcessStartInfo(
                "bash", ["-c", "while read n; do prlimit --pid $1 --nofile=$n: && echo ok; done", "-", $"{Environment.ProcessId}"])
            {
                UseShellExecute = false,
                RedirectStandardInput = true,
                RedirectStandardOutput = true,
            })!;
            Set(4096); // the limit is a greatest number: there must be no gaps below it
        }

        public bool With(int left, Func<bool> action)
        {
            // The kernel gives the lowest number that is free: fill the gaps below the greatest one.
            int greatest = Greatest(), next;
            do
            {
                EventFd one = new();
                _fill.Add(one);
                next = (int)one.Handle.DangerousGetHandle();
            }
            while (next < greatest);

            Set(Math.Max(next, greatest) + 1 + left);
            try
            {
                return action();
            }
            finally
            {
                Set(4096);
            }
        }

        public void Dispose()
        {
            _fill.ForEach(one => one.Dispose());
            _helper.StandardInput.Close();
            _helper.WaitForExit();
            _helper.Dispose();
        }

        private static int Greatest() => Directory.GetFiles("/proc/self/fd")
            .Max(path => int.Parse(Path.GetFileName(path), System.Globalization.CultureInfo.InvariantCulture));

        private void Set(int limit)
        {
            _helper.StandardInput.WriteLine(limit);
            _helper.StandardInput.Flush();
            Assert.Equal("ok", _helper.StandardOutput.ReadLine());
        }
    }
}
