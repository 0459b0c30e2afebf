using System.Diagnostics;

namespace Vmm.Storage.Tests.Replicas;

/// <summary>A small file system in memory, which can be filled.</summary>
internal sealed class SmallDisk : IDisposable
{
    private readonly string _folder;

    internal SmallDisk(string folder, int bytes)
    {
        _folder = folder;
        _ = Directory.CreateDirectory(folder);
        Assert.Equal(0, Run("mount", "-t", "tmpfs", "-o", $"size={bytes}", "tmpfs", folder));
    }

    /// <summary>Fills it but for so many bytes, or less where so many are not free.</summary>
    internal void Leave(int bytes)
    {
        string filler = Path.Combine(_folder, "filler");
        File.Delete(filler);
        long fill = new DriveInfo(_folder).AvailableFreeSpace - bytes;
        if (fill > 0)
        {
            File.WriteAllBytes(filler, new byte[fill]);
        }
    }

    public void Dispose() => Assert.Equal(0, Run("umount", "-l", _folder));

    internal static int Run(string program, params string[] arguments)
    {
        using Process run = Process.Start(program, arguments);
        run.WaitForExit();
        return run.ExitCode;
    }
}

/// <summary>A test that mounts a file system; skipped, with the reason, for a user who may not.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class TmpfsFactAttribute : FactAttribute
{
    public override string? Skip
    {
        get => Environment.IsPrivilegedProcess ? base.Skip : "mounting a file system needs root";
        set => base.Skip = value;
    }
}
