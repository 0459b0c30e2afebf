namespace Vmm.Storage.Qcow2.Tools;

/// <summary>Makes new, empty images.</summary>
public static class Qcow2Creator
{
    /// <summary>Makes one. Under its name there is a whole image, or nothing.</summary>
    /// <param name="path">The file.</param>
    /// <param name="options">What it is like. The backing file is not looked at here.</param>
    /// <param name="replace">A file of that name is replaced, when nobody uses it.</param>
    /// <exception cref="BlockException">There is no such image, the file exists, or the host failed.</exception>
    public static void Create(string path, Qcow2CreateOptions options, bool replace = false)
    {
        using NewImageFile target = NewImageFile.Create(path, replace);
        _ = new Qcow2Builder(target.File, options).Finish(ToolProgress.None);
        target.Complete();
    }

    /// <summary>Makes one in an empty file that the caller made and opened. It is stable when this returns.</summary>
    /// <exception cref="BlockException">There is no such image, or the host failed.</exception>
    public static void Fill(IImageFile file, Qcow2CreateOptions options)
    {
        _ = new Qcow2Builder(file, options).Finish(ToolProgress.None);
        file.Flush();
    }
}
