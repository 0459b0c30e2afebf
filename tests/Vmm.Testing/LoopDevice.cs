using System.Diagnostics;

namespace Vmm.Testing;

/// <summary>
/// A block device with blocks of 4 KiB over a temporary file of zeros: O_DIRECT takes whole blocks only. Needs root and losetup.
/// </summary>
public sealed class LoopDevice : IDisposable
{
    private readonly string _file = System.IO.Path.GetTempFileName();

    /// <summary>Makes one of so many bytes.</summary>
    public LoopDevice(long size)
    {
        try
        {
            using (FileStream file = File.OpenWrite(_file))
            {
                file.SetLength(size);
            }

            Path = Run("--find", "--show", "--sector-size", "4096", _file).Trim();
        }
        catch
        {
            File.Delete(_file);
            throw;
        }
    }

    /// <summary>Its node, such as <c>/dev/loop0</c>.</summary>
    public string Path { get; }

    /// <inheritdoc/>
    public void Dispose()
    {
        Run("--detach", Path);
        File.Delete(_file);
    }

    private static string Run(params string[] arguments)
    {
        using Process losetup = Process.Start(
            new ProcessStartInfo("losetup", arguments)
            {
                UseShellExecute = false,
                RedirectStandardOutput = true,
                RedirectStandardError = true
            })!;
        string output = losetup.StandardOutput.ReadToEnd(), problem = losetup.StandardError.ReadToEnd();
        losetup.WaitForExit();
        return losetup.ExitCode == 0 ? output : throw new InvalidOperationException($"losetup {string.Join(' ', arguments)}: {problem}");
    }
}
