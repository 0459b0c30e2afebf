using Vmm.Testing;

namespace Vmm.Host.Tests;

/// <summary>A script of Payload that runs in a test host with vmmctl, vmmd and a stock guest, and checks every step itself.</summary>
internal static class PayloadRun
{
    private const int Attempts = 4;

    /// <summary>Runs <c>Payload/NAME.sh</c> until it says <paramref name="end"/>.</summary>
    /// <param name="name">Name of the script, and of its folder in the test host.</param>
    /// <param name="guest">Main program of the guest.</param>
    /// <param name="nodes">Nodes of the test host.</param>
    /// <param name="seconds">When the test host is ended.</param>
    /// <param name="end">The last check.</param>
    /// <param name="modules">Modules of the guest beyond the usual.</param>
    /// <param name="more">Other files for the folder.</param>
    internal static void Check(
        string name, string guest, int nodes, int seconds, string end, string[]? modules = null, string[]? more = null)
    {
        string root = Tree.Root, work = Directory.CreateTempSubdirectory("vmm-payload-").FullName;
        try
        {
            string here = Path.Combine(root, "tests", "Vmm.Host.Tests", "Payload"),
                payload = Directory.CreateDirectory(Path.Combine(work, name)).FullName;
            string kernel = MatrixRun.Shell(root, 600, "tests/testhost/fetch-kernel", "trixie-cloud").Output.Trim().Split('\n')[^1];
            foreach (string file in (string[])[Path.Combine(here, name + ".sh"), Path.Combine(here, "lib.sh"), .. more ?? []])
            {
                File.Copy(Path.Combine(root, file), Path.Combine(payload, Path.GetFileName(file)));
            }

            File.Copy(Path.Combine(kernel, "vmlinuz"), Path.Combine(payload, "kernel"));
            MatrixRun.Shell(root, 120, "tests/testhost/make-guest-initramfs",
                ["--kernel", kernel, "--script", Path.Combine(here, guest), "--out", Path.Combine(payload, "initrd"),
                    .. (modules ?? []).SelectMany(m => (string[])["--module", m])]);

            // The emulated machine itself panics or hangs now and then (nested SVM in QEMU's emulation), and so do guests in it: then once
            // more. A check that fails for another reason fails each time.
            string said = "";
            for (int attempt = 1; attempt <= Attempts; attempt++)
            {
                (int status, said) = MatrixRun.Shell(root, seconds + 100, "tests/testhost/run", "--timeout", $"{seconds}", "--nodes",
                    $"{nodes}", "--payload", Path.Combine(root, "artifacts", "publish", "vmmctl"),
                    "--payload", Path.Combine(root, "artifacts", "publish", "vmmd"), "--payload", payload, "--",
                    $"/payload/{name}/{name}.sh || [ $? -eq 1 ]");
                if (status == 0 && said.Contains("ok: " + end, StringComparison.Ordinal))
                {
                    return;
                }

                Assert.DoesNotContain("CORRUPT", said, StringComparison.Ordinal);
                Console.WriteLine($"{name}: attempt {attempt} ended with {status}");
            }

            Assert.Fail(said);
        }
        finally
        {
            Directory.Delete(work, recursive: true);
        }
    }
}
