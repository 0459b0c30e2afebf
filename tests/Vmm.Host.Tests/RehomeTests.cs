using System.Runtime.InteropServices;

namespace Vmm.Host.Tests;

/// <summary>A vnode of a stock guest moves between two real host nodes, by vmmd, while the guest walks its memory; Payload/rehome.sh checks every step.</summary>
[Trait("Tier", "long")] // make soak: a quarter of an hour on the emulated machine
public sealed class RehomeTests
{
    private const int Attempts = 2;

    [Fact]
    public void A_vnode_moves_to_the_other_node_and_back_while_the_guest_keeps_its_checksum()
    {
        string root = MatrixRun.FindRoot(), work = Directory.CreateTempSubdirectory("vmm-rehome-").FullName;
        try
        {
            string here = Path.Combine(root, "tests", "Vmm.Host.Tests", "Payload"), payload = Directory.CreateDirectory(Path.Combine(work, "rehome")).FullName;
            string kernel = MatrixRun.Shell(root, 600, "tests/testhost/fetch-kernel", "trixie-cloud").Output.Trim().Split('\n')[^1];
            File.Copy(Path.Combine(here, "rehome.sh"), Path.Combine(payload, "rehome.sh"));
            File.Copy(Path.Combine(kernel, "vmlinuz"), Path.Combine(payload, "kernel"));
            MatrixRun.Shell(root, 120, "tests/testhost/make-guest-initramfs", "--kernel", kernel, "--script", Path.Combine(here, "rehome-guest.sh"), "--out", Path.Combine(payload, "initrd"));

            // The emulated machine itself panics now and then (nested SVM in QEMU's emulation), and so do guests in it: then once more. A check that fails
            // for another reason fails again.
            string said = "";
            for (int attempt = 1; attempt <= Attempts; attempt++)
            {
                (int status, said) = MatrixRun.Shell(root, 700, "tests/testhost/run", "--timeout", "600", "--payload", Path.Combine(root, "artifacts", "publish", "vmmctl"),
                    "--payload", Path.Combine(root, "artifacts", "publish", "vmmd"), "--payload", WebFramework(), "--payload", payload, "--", "/payload/rehome/rehome.sh || [ $? -eq 1 ]");
                if (status == 0 && said.Contains("ok: the guest kept its checksum", StringComparison.Ordinal))
                {
                    return;
                }

                Assert.DoesNotContain("CORRUPT", said, StringComparison.Ordinal);
                Console.WriteLine($"rehome: attempt {attempt} ended with {status}");
            }

            Assert.Fail(said);
        }
        finally
        {
            Directory.Delete(work, recursive: true);
        }
    }

    /// <summary>The published daemon takes ASP.NET Core from the machine it runs on; the image of the test host has none.</summary>
    private static string WebFramework() => Path.GetFullPath(Path.Combine(RuntimeEnvironment.GetRuntimeDirectory(), "..", "..", "Microsoft.AspNetCore.App"));
}
